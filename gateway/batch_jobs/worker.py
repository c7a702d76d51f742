"""BatchWorker: the task of a gateway process that works on batch jobs, in spare capacity only.

It reports its load and hears of the others', picks a job that has room, claims a part of its work and runs
it. Without Redis it starts nothing; what it holds it keeps, and records when Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from secrets import token_hex

import msgspec
from msgspec.structs import replace

from gateway.access import check_allowed
from gateway.api.errors import encode_error, shape_of
from gateway.batch_jobs.answer import RowAnswer
from gateway.batch_jobs.config import DAY_S, BatchJobsConfig
from gateway.batch_jobs.contents import Contents
from gateway.batch_jobs.lines import ENDPOINTS
from gateway.batch_jobs.slice_run import SliceRun, Tools
from gateway.batch_jobs.steps import Steps
from gateway.generation import Generation
from inference.request import Usage
from model_registry.errors import RegistryError
from model_registry.snapshot import Snapshot
from router.demand import Demanded, wanted_for_rows
from router.errors import RouterError
from router.profiles import BATCH_JOB, resolve
from router.spare import PROFILE, Report, SpareCapacity
from telemetry.metric_labels import BATCH_JOB_STATUSES
from telemetry.metrics import Metrics
from tenancy.batch_jobs.entities import ASSEMBLE, VALIDATE, BatchJob, Claim, RowError
from tenancy.batch_jobs.errors import BatchJobError, ClaimLostError
from tenancy.batch_jobs.store import JobStore
from tenancy.errors import AuthError, KeysNotLoadedError
from tenancy.keys import Identity, identity_of

_log = logging.getLogger(__name__)
_READ_REPORT = msgspec.json.Decoder(Report).decode


class BatchWorker:
    """One per gateway process; `run` is its supervised task."""

    def __init__(
        self,
        config: BatchJobsConfig,
        store: JobStore,
        contents: Contents,
        snapshot: Callable[[], Snapshot],
        generation: Generation,
        spare: SpareCapacity,
        demand: Demanded,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self.name = f"{os.getpid():x}.{token_hex(8)}"
        """Unlike every other worker's that ever was: claims are told apart by it."""
        self._config = config
        self._store = store
        self._contents = contents
        self._snapshot = snapshot
        self._generation = generation
        self._spare = spare
        self._demand = demand
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._steps = Steps(config, store, contents)
        self._tools = Tools(config, store, contents, metrics, self._answer, self._may_start, self.wake)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._slices: dict[Claim, SliceRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: list[BatchJob] = []
        """Jobs with work, as of the last pulse."""
        self._now_ms = 0
        self._fruitless: set[str] = set()
        """Jobs that had nothing to claim since the last pulse."""
        self._turns: Counter[str] = Counter()
        self._identities: tuple[Snapshot | None, dict[tuple[str, str], Identity | AuthError]] = (None, {})
        self._has_room = True
        self._draining = False
        self._heard_until_s = -1.0
        self._joined_ms = 0
        """By Redis' clock, since when the others hear of this worker without a break."""

    @property
    def slices(self) -> int:
        """Slices that this worker holds; a drain waits for none to be left."""
        return len(self._slices)

    def wake(self) -> None:
        """There may be something to do: look before the next pulse."""
        self._wake.set()

    def drain(self) -> None:
        """Claim and start nothing more; what runs is finished and recorded, the rest given back."""
        self._draining = True
        for run in self._slices.values():
            run.stop()

    async def run(self) -> None:
        """Work until cancelled."""
        pulse_at_s = 0.0
        try:
            while True:
                try:
                    if self._loop.time() >= pulse_at_s:
                        pulse_at_s = self._loop.time() + self._config.poll_s
                        await self._pulse()
                    await self._take()
                except RegistryError as error:
                    _log.debug("batch jobs wait for Redis", extra={"reason": str(error)})
                except Exception:  # whatever ails batch jobs, this process is there for requests
                    _log.exception("batch jobs could not be looked after; the next look follows")
                await self._rest(pulse_at_s)
        finally:
            await self._end()

    async def _rest(self, until_s: float) -> None:
        try:
            async with asyncio.timeout_at(until_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._store.leave(self.name)
        except RegistryError:
            pass  # its report gets old by itself

    # -- what there is to do ------------------------------------------------------------------------------

    async def _pulse(self) -> None:
        """Report, and learn what all others do and which jobs there are."""
        asked_at_s = self._loop.time()
        report = msgspec.json.encode(self._spare.report(self._now_ms))
        # Who is silent may only be slow, with its rows at engines: its part stays its own until others may
        # claim them.
        pulse = await self._store.pulse(self.name, report, self._config.lease_s)
        reports = {worker: _READ_REPORT(said) for worker, said in pulse.reports.items()}
        if asked_at_s > self._heard_until_s:  # the others may have forgotten this worker, or never knew it
            self._joined_ms = pulse.now_ms
        self._heard_until_s = asked_at_s + 4 * self._config.poll_s
        self._spare.learn(self.name, reports, self._joined_ms, self._heard_until_s)
        self._now_ms = pulse.now_ms
        self._fruitless.clear()
        self._jobs = await self._store.jobs_of(pulse.active) if pulse.active else []
        self._count(self._jobs)
        self._ask_for_models(self._jobs)
        await self._stop_unwelcome()
        stopped = {job.id for job in self._jobs if job.stop}
        for run in self._slices.values():
            if run.job.id in stopped:
                run.stop()
        await self._sweep()

    def _count(self, jobs: list[BatchJob]) -> None:
        by_status = dict.fromkeys(BATCH_JOB_STATUSES, 0) | Counter(str(job.status) for job in jobs)
        waiting = sum(job.total - job.completed - job.failed for job in jobs)
        self._metrics.batch_jobs(by_status, waiting)

    def _ask_for_models(self, jobs: list[BatchJob]) -> None:
        """Have models brought up that are not up and that rows wait for."""
        models = {
            self._model(job)
            for job in jobs
            if job.status == "in_progress" and not job.stop and job.completed + job.failed < job.total
        }
        self._demand.for_rows = wanted_for_rows(self._snapshot(), models, PROFILE)

    async def _stop_unwelcome(self) -> None:
        """Cancel the jobs of keys and tenants that may not go on."""
        for job in self._jobs:
            refusal = self._who(job)
            if (
                isinstance(refusal, AuthError)
                and not isinstance(refusal, KeysNotLoadedError)
                and not job.stop
            ):
                await self._store.stop(job, RowError("key_disabled", f"Stopped: {refusal}."))

    def _who(self, job: BatchJob) -> Identity | AuthError:
        """As whom the job runs, by the snapshot of now."""
        snapshot = self._snapshot()
        if self._identities[0] is not snapshot:
            self._identities = snapshot, {}
        known = self._identities[1]
        found = known.get((job.tenant, job.key))
        if found is None:
            try:
                found = identity_of(snapshot, job.tenant, job.key)
            except AuthError as error:
                found = error
            known[job.tenant, job.key] = found
        return found

    # -- claims -------------------------------------------------------------------------------------------

    async def _take(self) -> None:
        """Claim as much as there is room for, fairly between tenants, then between their jobs."""
        if self._draining:
            return
        while (job := self._next()) is not None:
            max_slices = max(1, self._config.rows_per_job // max(1, job.slice_rows))
            claim = await self._store.claim(job, self.name, self._config.lease_s, max_slices)
            if claim is None:
                self._fruitless.add(job.id)
                continue
            self._turns[job.tenant] += 1
            self._turns[job.id] += 1
            if job.status != "in_progress":
                # Another worker may have validated it since the last pulse: from here on no more of its rows
                # are claimed than there is room for.
                job = await self._store.job(job.tenant, job.id)
                self._jobs = [job if known.id == job.id else known for known in self._jobs]
            self._work(job, claim)

    def _next(self) -> BatchJob | None:
        """The job whose turn it is, of those with something that may be begun."""
        wanting = [job for job in self._jobs if job.id not in self._fruitless and self._wants(job)]
        if len(self._turns) > 10 * (len(self._jobs) + 100):
            self._turns.clear()
        return min(wanting, key=lambda job: (self._turns[job.tenant], self._turns[job.id]), default=None)

    def _wants(self, job: BatchJob) -> bool:
        is_slice_next = job.status == "in_progress" and not job.stop
        if not is_slice_next or self._is_over(job):
            return len(self._tasks) - len(self._slices) < 1  # steps read whole files: one at a time
        if not self._has_room or not isinstance(self._who(job), Identity):
            return False
        model = self._model(job)
        waiting = sum(run.waiting for run in self._slices.values() if self._model(run.job) == model)
        return self._running < self._config.rows_per_worker and self._room(job) > waiting

    def _is_over(self, job: BatchJob) -> bool:
        return self._now_ms >= job.times["expires_at"] * 1000

    @property
    def _running(self) -> int:
        return sum(run.running for run in self._slices.values())

    def _work(self, job: BatchJob, claim: Claim) -> None:
        if claim.part in {VALIDATE, ASSEMBLE}:
            work = self._step(job, claim)
        else:
            self._slices[claim] = SliceRun(self._tools, job, claim)
            work = self._slice(claim)
        task = self._loop.create_task(work, name=f"{job.id}:{claim.part}")
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.wake()

    async def _slice(self, claim: Claim) -> None:
        run = self._slices[claim]
        try:
            await run.run()
        except ClaimLostError as error:
            _log.warning("claim lost to another worker", extra={"claim": str(error)})
        except Exception:
            _log.exception("slice failed; another claim takes its rows", extra={"job": claim.job_id})
        finally:
            del self._slices[claim]

    async def _step(self, job: BatchJob, claim: Claim) -> None:
        try:
            if claim.part == VALIDATE:
                await self._steps.validate(job, claim, self._allow(job), self._max_body_bytes)
            else:
                await self._steps.assemble(claim)
        except (BatchJobError, RegistryError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            _log.warning("step of a batch job is tried again", extra={"job": job.id, "reason": reason})
        except Exception:
            _log.exception("step of a batch job failed; it is tried again", extra={"job": job.id})
        finally:
            self._jobs = [known for known in self._jobs if known.id != job.id]  # known anew by the next pulse

    def _allow(self, job: BatchJob) -> Callable[[str], object]:
        """Whether the job's tenant may use a model; raises RouterError."""
        snapshot, who = self._snapshot(), self._who(job)

        def allow(name: str) -> None:
            wish = resolve(snapshot, name, None, None)
            if isinstance(who, Identity):
                check_allowed(who, replace(wish, reason=BATCH_JOB))

        return allow

    # -- rows ---------------------------------------------------------------------------------------------

    def _may_start(self, job: BatchJob) -> bool:
        """Called right before each row, on what is known at that moment."""
        return (
            not self._draining
            and self._running < self._config.rows_per_worker
            and isinstance(self._who(job), Identity)
            and self._room(job) > 0
        )

    def _room(self, job: BatchJob) -> int:
        """Rows of the job's model that may be started, less those on their way to an endpoint."""
        model = self._model(job)
        started = sum(run.running for run in self._slices.values() if self._model(run.job) == model)
        return self._spare.room(model) - max(0, started - self._spare.held(model))

    def _model(self, job: BatchJob) -> str:
        """The model behind the name that the job's rows use; empty when there is none now."""
        snapshot = self._snapshot()
        if job.model in snapshot.models:
            return job.model
        try:
            return resolve(snapshot, job.model, None, None).model.name
        except RouterError:
            return ""

    async def _answer(self, job: BatchJob, body: bytes) -> RowAnswer:
        who = self._who(job)
        if not isinstance(who, Identity):
            shape = shape_of(who)
            return RowAnswer(shape.status, encode_error(shape), "", shape.code, Usage())
        return await self._generation.answer_row(who, ENDPOINTS[job.endpoint], body, self._spare.admits)

    # -- what is kept too long ----------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Delete what is past its time; one worker does it, now and then."""
        self._has_room = await asyncio.to_thread(self._contents.has_room)
        if not await self._store.may_sweep(self.name, self._config.sweep_s):
            return
        for file in await self._store.forget_expired():
            await asyncio.to_thread(self._contents.remove_file, file.id)
        left = await asyncio.to_thread(self._contents.old_jobs, DAY_S)
        known = {job.id for job in await self._store.jobs_of(left) if not job.ended} if left else set()
        for job_id in set(left) - known:
            await asyncio.to_thread(self._contents.remove_job, job_id)
        kept_s = max(self._config.retention_s, 30 * DAY_S) + 7 * DAY_S
        await asyncio.to_thread(self._contents.drop_old, DAY_S, kept_s)

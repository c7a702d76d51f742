"""JobStore: files and batch jobs in Redis, changed by short scripts; contents and results are elsewhere.

Every method raises RegistryUnavailableError when Redis is away, slow or refuses to write; a write may then
have happened, and all of them may be said again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import Any, Literal, NamedTuple, Self

import msgspec

from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer
from tenancy.batch_jobs.entities import BatchJob, Claim, Pulse, Recording, RowError, StoredFile
from tenancy.batch_jobs.errors import (
    ClaimLostError,
    FileInUseError,
    JobOverError,
    TooManyFilesError,
    TooManyJobsError,
    UnknownCursorError,
    UnknownFileError,
    UnknownJobError,
)
from tenancy.batch_jobs.keys import Keys
from tenancy.batch_jobs.scripting import scripts

_SWEPT_AT_ONCE = 500
_READ_FILE = msgspec.json.Decoder(StoredFile).decode


class Page(NamedTuple):
    """Ids of one page, and whether more follow."""

    ids: list[str]
    more: bool


class Asked(NamedTuple):
    """What a client asks of a new job."""

    tenant: str
    key: str
    endpoint: str
    input_file: str
    completion_window: str
    window_s: float
    metadata: dict[str, str] | None
    output_expires_s: int


def new_file_id() -> str:
    return f"file-{token_hex(12)}"


class JobStore:
    """Files and jobs of the registry called `name`; `redis` comes from `connect`."""

    def __init__(self, redis: RedisClient, name: str, answer_within_s: float) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._scripts = scripts(redis, answer_within_s)
        self._answer_within_s = answer_within_s

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig) -> Self:
        """The jobs of the registry that `config` describes."""
        return cls(redis, config.name, config.command_timeout_s)

    # -- files --------------------------------------------------------------------------------------------

    async def now_s(self) -> int:
        """Redis' time, Unix seconds."""
        async with answer(self._answer_within_s):
            reply: Any = await self._redis.time()
        return int(reply[0])

    async def add_file(self, file: StoredFile, limit: int) -> None:
        """Make a file known whose content is stored. Raises TooManyFilesError."""
        document = msgspec.json.encode(file).decode()
        reply = await self._scripts.run(
            "add_file", self._keys.file(file.tenant), file.id, document, file.expires_at * 1000, limit
        )
        if reply == "too many":
            raise TooManyFilesError(limit)

    async def file(self, tenant: str, file_id: str) -> StoredFile:
        """One file. Raises UnknownFileError, also for one of another tenant."""
        async with answer(self._answer_within_s):
            document = await self._redis.hget(self._keys.of("files"), file_id)
        found = None if document is None else _READ_FILE(str(document))
        if found is None or found.tenant != tenant:
            raise UnknownFileError(file_id)
        return found

    async def delete_file(self, tenant: str, file_id: str) -> None:
        """Forget a file. Raises UnknownFileError, FileInUseError."""
        reply = await self._scripts.run("delete_file", self._keys.file(tenant), file_id)
        if reply == "missing":
            raise UnknownFileError(file_id)
        if reply == "in use":
            raise FileInUseError(file_id)

    async def files(
        self, tenant: str, *, after: str, limit: int, order: Literal["asc", "desc"], purpose: str = ""
    ) -> tuple[list[StoredFile], bool]:
        """One page of a tenant's files, and whether more follow. Raises UnknownCursorError."""
        page = await self._page(f"files-of:{tenant}", after, limit, order, purpose)
        documents: list[Any] = []
        if page.ids:
            async with answer(self._answer_within_s):
                documents = await self._redis.hmget(self._keys.of("files"), page.ids)
        return [_READ_FILE(str(document)) for document in documents if document], page.more

    # -- jobs ---------------------------------------------------------------------------------------------

    async def create(self, asked: Asked, limit: int) -> BatchJob:
        """A new job that waits for its validation. Raises UnknownFileError, TooManyJobsError."""
        job_id = f"batch_{token_hex(12)}"
        fields = {"id": job_id, **asked._asdict()}
        window_s = fields.pop("window_s")
        document = msgspec.json.encode(fields).decode()
        reply = await self._scripts.run(
            "create_job", self._keys.job(job_id, asked.tenant),
            job_id, asked.input_file, limit, _ms(window_s), document,
        )  # fmt: skip
        if reply == "no file":
            raise UnknownFileError(asked.input_file, "input_file_id")
        if reply == "too many":
            raise TooManyJobsError(limit)
        return await self.job(asked.tenant, job_id)

    async def job(self, tenant: str, job_id: str) -> BatchJob:
        """One job. Raises UnknownJobError, also for one of another tenant."""
        found = await self.jobs_of((job_id,))
        if not found or found[0].tenant != tenant:
            raise UnknownJobError(job_id)
        return found[0]

    async def jobs_of(self, ids: Iterable[str]) -> list[BatchJob]:
        """Those of the jobs that there still are."""
        async with answer(self._answer_within_s):
            pipe = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(self._keys.of(f"job:{job_id}"))
            return [BatchJob.of(fields) for fields in await pipe.execute() if fields]

    async def jobs(self, tenant: str, *, after: str, limit: int) -> tuple[list[BatchJob], bool]:
        """One page of a tenant's jobs, the newest first. Raises UnknownCursorError."""
        page = await self._page(f"jobs-of:{tenant}", after, limit, "desc")
        return await self.jobs_of(page.ids), page.more

    async def cancel(self, tenant: str, job_id: str) -> BatchJob:
        """Start no further row. Raises UnknownJobError, JobOverError."""
        job = await self.job(tenant, job_id)
        if job.ended:
            raise JobOverError(job_id, job.status)
        await self._scripts.run("stop", self._keys.job(job_id, tenant), "")
        job = await self.job(tenant, job_id)
        if job.stop != "cancelled":
            raise JobOverError(job_id, job.status)
        return job

    async def stop(self, job: BatchJob, error: RowError) -> None:
        """Cancel a job that may not go on, for a reason that its owner is shown."""
        shown = msgspec.json.encode([error]).decode()
        await self._scripts.run("stop", self._keys.job(job.id, job.tenant), shown)

    # -- work ---------------------------------------------------------------------------------------------

    async def claim(self, job: BatchJob, worker: str, lease_s: float, max_slices: int) -> Claim | None:
        """A part of the job's work that nobody holds, for `lease_s`; None when there is none."""
        keys = self._keys.job(job.id, job.tenant)
        reply = await self._scripts.run("claim", keys, worker, _ms(lease_s), max_slices)
        if not reply:
            return None
        part, holder, *rows = reply
        return Claim(job.id, job.tenant, str(part), str(holder), tuple(int(row) for row in rows))

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold it for `lease_s` from now; False: start nothing more of it. Raises ClaimLostError."""
        return await self._held("renew", claim, claim.part, claim.holder, _ms(lease_s)) == "ok"

    async def release(self, claim: Claim) -> None:
        """Let others do what is left of it. Raises ClaimLostError."""
        await self._held("release", claim, claim.part, claim.holder)

    async def validated(self, claim: Claim, rows: int, slice_rows: int, model: str) -> None:
        """The input is in order. Raises ClaimLostError."""
        await self._held("validated", claim, claim.holder, rows, slice_rows, model)

    async def refused(self, claim: Claim, errors: Sequence[RowError], retention_s: float) -> None:
        """The input is not in order: the job fails. Raises ClaimLostError."""
        shown = msgspec.json.encode(errors).decode()
        await self._held("refused", claim, claim.holder, claim.job_id, shown, _ms(retention_s))

    async def record(self, claim: Claim, lease_s: float, recording: Recording, *, done: bool) -> None:
        """The commit point of rows: their segment is whole on disk, and counts from here on.

        `done`: nothing is left of the slice. An answer that got lost tells nothing: say it again until Redis
        answers. Raises ClaimLostError: the segment does not count and never will.
        """
        counts = recording.completed, recording.failed
        tokens = recording.input_tokens, recording.output_tokens, recording.cached_tokens
        args = (claim.part, claim.holder, _ms(lease_s), recording.segment, *counts, *tokens, int(done))
        await self._held("record", claim, *args, *recording.rows)

    async def segments(self, job_id: str) -> list[str]:
        """The segments that count."""
        async with answer(self._answer_within_s):
            names = await self._redis.hkeys(self._keys.of(f"job:{job_id}:segments"))
        return sorted(map(str, names))

    async def finished(self, claim: Claim, files: Sequence[StoredFile], retention_s: float) -> None:
        """The job's files are stored: end it and make them known, in one step. Raises ClaimLostError."""
        args: list[str | int] = []
        for field, file in zip(("output_file", "error_file"), files, strict=True):
            if file.bytes:
                document = msgspec.json.encode(file).decode()
                args += [field, file.id, document, file.expires_at * 1000]
        await self._held("finished", claim, claim.holder, claim.job_id, _ms(retention_s), *args)

    async def pulse(self, worker: str, report: bytes, old_after_s: float) -> Pulse:
        """Report this worker's load, and learn that of the others."""
        keys = [self._keys.of(suffix) for suffix in ("workers", "worker-seen", "active")]
        reply = await self._scripts.run("pulse", keys, worker, report.decode(), _ms(old_after_s))
        now, flat, active = reply
        reports = {str(flat[i]): str(flat[i + 1]).encode() for i in range(0, len(flat), 2)}
        return Pulse(int(now), reports, tuple(map(str, active)))

    async def leave(self, worker: str) -> None:
        """This worker ends: the others share what was its part."""
        async with answer(self._answer_within_s):
            await self._redis.hdel(self._keys.of("workers"), worker)

    # -- what is kept too long ----------------------------------------------------------------------------

    async def may_sweep(self, worker: str, period_s: float) -> bool:
        """Whether this worker is the one that sweeps in this period."""
        async with answer(self._answer_within_s):
            key = self._keys.of("sweeper")
            return bool(await self._redis.set(key, worker, nx=True, px=_ms(period_s)))

    async def forget_expired(self) -> list[StoredFile]:
        """Forget files past their time, but for those that a job reads, and jobs past theirs."""
        now_ms = await self.now_s() * 1000
        await self._forget_jobs(now_ms)
        gone = []
        for file in await self._expired_files(now_ms):
            try:
                await self.delete_file(file.tenant, file.id)
            except (FileInUseError, UnknownFileError):
                continue
            gone.append(file)
        return gone

    async def _expired_files(self, now_ms: int) -> list[StoredFile]:
        async with answer(self._answer_within_s):
            found: Any = await self._redis.zrangebyscore(
                self._keys.of("file-ends"), "-inf", now_ms, start=0, num=_SWEPT_AT_ONCE
            )
            ids = [str(one) for one in found]
            documents = await self._redis.hmget(self._keys.of("files"), ids) if ids else []
        return [_READ_FILE(str(document)) for document in documents if document]

    async def _forget_jobs(self, now_ms: int) -> None:
        async with answer(self._answer_within_s):
            ends = self._keys.of("job-ends")
            ids: Any = await self._redis.zrangebyscore(ends, "-inf", now_ms, start=0, num=_SWEPT_AT_ONCE)
        for job in await self.jobs_of(map(str, ids)) if ids else []:
            async with answer(self._answer_within_s):
                pipe = self._redis.pipeline(transaction=True)
                pipe.zrem(self._keys.of(f"jobs-of:{job.tenant}"), job.id)
                pipe.delete(self._keys.of(f"job:{job.id}"))
                pipe.zrem(ends, job.id)
                await pipe.execute()

    # -- inner --------------------------------------------------------------------------------------------

    async def _page(self, index: str, after: str, limit: int, order: str, purpose: str = "") -> Page:
        keys = [self._keys.of(index), self._keys.of("files")]
        reply = await self._scripts.run("page", keys, after, limit, order, purpose)
        if reply is None:
            raise UnknownCursorError(after)
        more, *ids = reply
        return Page([str(one) for one in ids], bool(more))

    async def _held(self, script: str, claim: Claim, *args: str | int) -> str:
        reply = str(await self._scripts.run(script, self._keys.job(claim.job_id, claim.tenant), *args))
        if reply not in {"ok", "stop"}:
            raise ClaimLostError(f"{claim.part} of {claim.job_id}: {reply}")
        return reply


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))

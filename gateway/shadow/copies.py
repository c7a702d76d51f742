"""Copies: asks a rollout's candidate, or the stable deployment again, what a client has just been answered.

A copy begins when the client's answer is over, in room that nobody waits for, and is dropped where there is
none. It belongs to no tenant: nobody is billed for it, and no limit counts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from random import Random
from time import monotonic

from gateway.entry import Entry
from gateway.shadow.embedding import VectorsCopy, differs, request_for
from gateway.shadow.heard import Comparison, Heard, compare, is_error
from gateway.shadow.primary import copy_of, ending, heard_by_client, repeats, said, why_not
from gateway.shadow.records import Records
from gateway.shadow.watched import Watched
from gateway.streaming.whole_choice import WholeChoice
from gateway.usage import usage_of
from inference.client import ModelClients
from inference.errors import InferenceError, ServerTimeoutError
from inference.request import InferenceRequest
from model_registry.entities import Endpoint
from router.answer import Outcome
from router.attempts import Finished, Router
from router.ledger import Charge
from telemetry.metric_labels import CopyOutcome, RolloutSide
from telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_BUSY_SHARE = 0.5
"""Of an endpoint's slots: one that has more in flight gets no copies."""
_SIDES: Mapping[bool, RolloutSide] = {False: "candidate", True: "stable"}
_OUTCOMES: Mapping[bool | None, CopyOutcome] = {None: "uncompared", True: "different", False: "same"}


class _Copy(WholeChoice):
    """Takes a copy's answer; bytes of an upstream are kept as they come."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(0, watched.assembling.make)
        self.read: list[bytes] = []

    def data(self, data: bytes) -> None:
        if self.first_token_s is None:
            self._first()
        self.read.append(data)


class Copies:
    """One per gateway process."""

    def __init__(
        self,
        clients: ModelClients,
        router: Router,
        records: Records,
        metrics: Metrics,
        timeout_s: float,
        random: Random | None = None,
    ) -> None:
        """`timeout_s`: the longest that a copy may take."""
        self._clients = clients
        self._router = router
        self._records = records
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._random = random or Random()
        self._running: dict[asyncio.Task[None], str] = {}

    def finished(self, entry: Entry, watched: Watched) -> None:
        """A client's request is over: count it, and copy it where that is wanted and may be."""
        rolling = watched.rolling
        status = rolling.status
        self._records.served(entry, rolling)
        if self._random.random() >= status.copies:
            return
        to_self = self._random.random() < status.self_share
        reason = why_not(entry, watched)
        endpoint = None
        if reason is None and self._copies_of(status.name) >= status.concurrency:
            reason = "concurrency"
        if reason is None:
            endpoint = self._endpoint(entry, watched, rolling.stable() if to_self else rolling.candidate)
            reason = "no_room" if endpoint is None else None
        if endpoint is None:
            self._records.skipped(rolling, reason or "no_room")
            return
        task = asyncio.create_task(self._run(entry, watched, endpoint, to_self), name="copy of a request")
        self._running[task] = status.name
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Give up what runs."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _copies_of(self, rollout: str) -> int:
        return sum(name == rollout for name in self._running.values())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a copy failed unexpectedly", exc_info=error)

    def _endpoint(self, entry: Entry, watched: Watched, of: Sequence[Endpoint]) -> Endpoint | None:
        """The least busy one with room to spare; None while clients wait for the model."""
        if self._router.waiting[watched.rolling.status.model] > 0:
            return None
        selection = None if entry.identity is None else entry.identity.policy.selection
        loads = self._router.ledger
        free = [
            (loads.of(one.name).requests / one.max_concurrency, one)
            for one in of
            if one.state == "ready"
            and (watched.lanes is None or one.lane in watched.lanes)
            and (selection is None or selection.fits(one))
        ]
        least = min(free, key=lambda pair: pair[0], default=None)
        return None if least is None or least[0] > _BUSY_SHARE else least[1]

    async def _run(self, entry: Entry, watched: Watched, endpoint: Endpoint, to_self: bool) -> None:
        compared = self._embedded if watched.inputs else self._generated
        found = await compared(entry, watched, endpoint)
        rolling, side = watched.rolling, _SIDES[to_self]
        if not isinstance(found, InferenceError):
            self._records.copied(rolling, to_self, found)
            self._metrics.rollout_copy(rolling.status.model, side, _OUTCOMES[found.differs])
        elif is_error(found):
            self._records.copied(rolling, to_self, None)
            self._metrics.rollout_copy(rolling.status.model, side, "failed")
        else:
            self._records.skipped(rolling, found.outcome)

    async def _embedded(
        self, entry: Entry, watched: Watched, endpoint: Endpoint
    ) -> Comparison | InferenceError:
        """Times are left out: a client's inputs were joined with others'."""
        request = request_for(entry.request_id, watched.rolling.status.model, watched.inputs)
        answer = VectorsCopy()
        outcome = await self._ask(endpoint, request, answer, sum(len(one.ids) for one in watched.inputs))
        if isinstance(outcome, InferenceError):
            return outcome
        otherwise = differs(watched.vectors, answer.got)
        return Comparison(otherwise, float(not otherwise), None, None, None, None)

    async def _generated(
        self, entry: Entry, watched: Watched, endpoint: Endpoint
    ) -> Comparison | InferenceError:
        request, answer = copy_of(watched.requests[0]), _Copy(watched)
        began_s = monotonic()
        outcome = await self._ask(endpoint, request, answer, len(request.prompt_ids or ()))
        if isinstance(outcome, InferenceError):
            return outcome
        total_s = monotonic() - began_s
        finished = Finished(*outcome, endpoint, 1, 0)
        streamed = request.stream and endpoint.lane != "openai-http"
        ttft_s = answer.first_token_s - began_s if streamed and answer.first_token_s is not None else None
        usage = usage_of([answer], [finished], [request], None, None)
        text, reason = said(answer, b"".join(answer.read), watched)
        reason = reason or outcome[0] or ending(answer, request)
        copy = Heard(text, reason, usage.completion_tokens, total_s, ttft_s)
        return compare(heard_by_client(entry, watched), copy, repeatable=repeats(entry, endpoint))

    async def _ask(
        self, endpoint: Endpoint, request: InferenceRequest, answer: WholeChoice, prompt: int
    ) -> Outcome:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        answer.attempt_outcome(done)
        call = None  # its prompt counts as cached: clients are routed as if it was not there
        with self._router.ledger.spare_lease(endpoint.name, Charge(1, prompt)):
            try:
                async with asyncio.timeout(self._timeout_s):
                    call = self._clients.of(endpoint).start(request, answer)
                    answer.attempt_runs(call)
                    return await done
            except InferenceError as error:
                return error
            except TimeoutError:
                return ServerTimeoutError(f"{endpoint.name} answered no copy within {self._timeout_s:g} s")
            finally:
                if call is not None:
                    call.cancel()

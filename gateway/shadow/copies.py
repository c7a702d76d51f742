"""Copies: asks a rollout's candidate, or the stable deployment again, what a client has just been answered.

A copy begins when the client's answer is over, in room that nobody waits for, and is dropped where there is
none. It belongs to no tenant: nobody is billed for it, and no limit counts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random
from time import monotonic

from msgspec.structs import replace

from gateway.entry import Entry
from gateway.shadow.canary import Canary
from gateway.shadow.heard import Heard, compare, is_error, text_of, upstream_text
from gateway.shadow.records import Records
from gateway.shadow.watched import Watched
from gateway.streaming.choices import WholeChoice
from gateway.usage import usage_of
from inference.client import ModelClients
from inference.errors import InferenceError
from inference.request import InferenceRequest, Sampling
from model_registry.entities import Endpoint
from router.answer import Outcome
from router.attempts import Finished, Router
from router.ledger import Charge
from telemetry.metric_labels import CopyOutcome, RolloutSide
from telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_BUSY_SHARE = 0.5
"""Of an endpoint's slots: one that has more in flight gets no copies."""


class _Copy(WholeChoice):
    """Takes a copy's answer; bytes of an upstream are kept as they come."""

    def __init__(self, watched: Watched, outcome: asyncio.Future[Outcome]) -> None:
        super().__init__(0, watched.assembling.make)
        self._outcome = outcome
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
        self._canaries: dict[str, Canary] = {}
        self._running: dict[asyncio.Task[None], str] = {}

    def finished(self, entry: Entry, watched: Watched) -> None:
        """A client's request is over: count it, and copy it where that is wanted and may be."""
        rolling = watched.rolling
        status = rolling.status
        canary = self._canaries.get(status.name)
        if canary is None or canary.epoch != status.epoch:
            canary = self._canaries[status.name] = Canary(status.epoch)
        canary.saw(entry, rolling, self._records.of(rolling))
        if self._random.random() >= status.copies:
            return
        to_self = self._random.random() < status.self_share
        reason = _why_not(entry, watched)
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
        client = _heard_by_client(entry, watched)
        request = _copy_of(watched.requests[0])
        prompt = len(request.prompt_ids or ())
        charge = Charge(prompt, prompt, client.tokens or 0, None)
        with self._router.ledger.spare_lease(endpoint.name, charge):
            copy = await self._ask(endpoint, request, watched)
        side: RolloutSide = "stable" if to_self else "candidate"
        if isinstance(copy, InferenceError):
            if is_error(copy):
                self._records.copied(watched.rolling, to_self, None)
                self._metrics.rollout_copy(watched.rolling.status.model, side, "failed")
            else:
                self._records.skipped(watched.rolling, copy.outcome)
            return
        found = compare(client, copy, repeatable=_repeats(entry, endpoint))
        self._records.copied(watched.rolling, to_self, found)
        outcome: CopyOutcome = "uncompared"
        if found.differs is not None:
            outcome = "different" if found.differs else "same"
        self._metrics.rollout_copy(watched.rolling.status.model, side, outcome)

    async def _ask(
        self, endpoint: Endpoint, request: InferenceRequest, watched: Watched
    ) -> Heard | InferenceError:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        answer = _Copy(watched, done)
        began_s, call = monotonic(), None
        try:
            async with asyncio.timeout(self._timeout_s):
                call = self._clients.of(endpoint).start(request, answer)
                answer.attempt_runs(call)
                outcome = await done
        except InferenceError as error:
            return error
        except TimeoutError:
            return InferenceError(f"{endpoint.name} did not answer a copy within {self._timeout_s:g} s")
        finally:
            if call is not None and not done.done():
                call.cancel()
        if isinstance(outcome, InferenceError):
            return outcome
        total_s = monotonic() - began_s
        finished = Finished(*outcome, endpoint, 1, 0)
        streamed = request.stream and endpoint.lane != "openai-http"
        ttft_s = answer.first_token_s - began_s if streamed and answer.first_token_s is not None else None
        usage = usage_of([answer], [finished], [request], None, None)
        text, reason = _said(answer, b"".join(answer.read), watched)
        reason = reason or outcome[0] or _ending(answer, request)
        return Heard(text, reason, usage.completion_tokens, total_s, ttft_s)


def _why_not(entry: Entry, watched: Watched) -> str | None:
    """Why a request is not copied, whatever room there is."""
    finished = entry.finished
    if entry.status != 200 or entry.error_type is not None or not finished:
        return "not_answered"
    if len(watched.requests) != 1 or len(finished) != 1 or (entry.api is not None and entry.api.answers != 1):
        return "several_answers"
    if watched.requests[0].lora is not None:
        return "adapter"
    if entry.identity is not None and entry.identity.policy.isolation_class:
        return "isolated_kv"
    if watched.rolling.side(finished[0].endpoint.deployment) != "stable":
        return "served_elsewhere"
    if entry.wish is None or entry.wish.profile != watched.rolling.profile:
        return "other_profile"
    relayed = finished[0].endpoint.lane == "openai-http"
    return "translated" if relayed and not watched.requests[0].relay else None


def _copy_of(request: InferenceRequest) -> InferenceRequest:
    """The same question, of a name and a trace of its own."""
    return replace(request, id=f"{request.id}-copy", traceparent=None, tracestate=None, relay=True)


def _heard_by_client(entry: Entry, watched: Watched) -> Heard:
    finished, choice = entry.finished[0], entry.choices[0]
    text, reason = _said(choice, getattr(choice, "body", None) or b"".join(watched.relayed), watched)
    reason = reason or finished.reason or _ending(choice, watched.requests[0])
    tokens, total_s, ttft_s = entry.usage.completion_tokens, None, None
    attempts = entry.trace.attempts
    if len(attempts) == 1 and (end_ns := attempts[0].end_ns) is not None:
        begin_ns, first_ns = attempts[0].start_ns, attempts[0].first_token_ns
        total_s = (end_ns - begin_ns) / 1e9
        streamed = watched.requests[0].stream and finished.endpoint.lane != "openai-http"
        ttft_s = (first_ns - begin_ns) / 1e9 if streamed and first_ns is not None else None
    return Heard(text, reason, tokens, total_s, ttft_s)


def _said(choice: object, relayed: bytes, watched: Watched) -> tuple[str | None, str | None]:
    """Text and, where an upstream told it, the finish reason."""
    if relayed:
        told = upstream_text(relayed)
        return (None, None) if told is None else told
    assembler, make = getattr(choice, "assembler", None), watched.assembling.make
    if assembler is None or make is None:
        return None, None
    stopped = "stop" if assembler.stopped else None
    return text_of(assembler, make, watched.assembling.parser()), stopped


def _ending(choice: object, request: InferenceRequest) -> str:
    assembler = getattr(choice, "assembler", None)
    return "stop" if assembler is None else str(assembler.ending(request.max_tokens))


def _repeats(entry: Entry, endpoint: Endpoint) -> bool:
    """Whether the copy should have the client's answer: a seed means the same to engines of one kind only."""
    sampling = Sampling() if entry.api is None else entry.api.sampling
    if sampling.temperature == 0 or sampling.top_k == 1:
        return True
    return sampling.seed is not None and endpoint.lane == entry.finished[0].endpoint.lane

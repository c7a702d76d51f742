"""Request batches: the inputs of many embedding requests, sent to a model's servers together.

What comes while the model is idle is sent at once; what comes while calls are under way waits and goes
together, neighbours in length side by side. A request batch that fails for what one input may have done wrong
is split and sent again, so that only that input's request fails. A request that is cancelled takes its inputs
out; a call that nobody waits for any more is cancelled. Owned by one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple

from msgspec import Struct, field

from inference.errors import (
    InferenceError,
    ProtocolError,
    RequestRefusedError,
    ServerFailedError,
    StreamBrokenError,
)
from inference.request import EmbeddingInput, InferenceRequest, Usage
from inference.sink import Call, Delta, FinishReason, TokenScore
from router.answer import Outcome
from router.attempts import Finished, Router
from router.batch_choice import choose
from router.errors import AttemptsExhaustedError, ColdFullError, RouterError
from router.job import Job
from router.profiles import Wish
from telemetry.request_trace import AttemptTrace, RequestTrace
from telemetry.shared_trace import SharedTrace
from tenancy.policy import Selection

EMBEDDING_LANES = frozenset({"encoder", "text_encoder", "vllm"})
_ONE_INPUTS_FAULT = (RequestRefusedError, ServerFailedError, ProtocolError, StreamBrokenError)
"""Failures that one input may have caused to all of its request batch."""
_WINDOW = 4
"""Request batches' worth of waiting inputs among which neighbours in length are looked for."""


class Embedded(NamedTuple):
    """The answer to one request: a vector per input, and how each request batch went that held some."""

    vectors: list[bytes]
    finished: list[Finished]


class _Member(Struct, eq=False):
    """One request: its vectors as they come, and the future that ends its waiting."""

    trace: RequestTrace
    vectors: list[bytes]
    left: int
    done: asyncio.Future[None]
    finished: dict[int, Finished] = field(default_factory=dict)
    """By the number of the request batch."""
    on_held: Callable[[], None] | None = None
    deadline_s: float | None = None


class _Part(NamedTuple):
    """One input of one request."""

    member: _Member
    place: int
    """Of the input in its request."""
    input: EmbeddingInput


class _Trouble(Struct, eq=False):
    """What the splits of one request batch share."""

    blamed: set[str] = field(default_factory=set)
    """Endpoints whose breaker has heard of it: once, however often it is split."""
    failures_left: int = 0
    """Server failures after which nothing more is tried: then it is the server, not one input."""


class _Queue(Struct, eq=False):
    """What waits for one model under one profile, and the calls under way."""

    wish: Wish
    lanes: frozenset[str]
    selection: Selection | None
    waiting: list[_Part] = field(default_factory=list)
    running: dict[asyncio.Task[None], list[_Part]] = field(default_factory=dict)


_Key = tuple[str, str, frozenset[str], Selection | None]
"""Model, profile, lanes and selection: what inputs must have in common to be joined."""


class RequestBatches:
    """Embeds; one per gateway process."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._config = router.config.embeddings
        self._queues: dict[_Key, _Queue] = {}
        self._numbers = count(1)

    async def embed(
        self,
        wish: Wish,
        inputs: Sequence[EmbeddingInput],
        trace: RequestTrace,
        lanes: frozenset[str],
        selection: Selection | None = None,
        on_held: Callable[[], None] | None = None,
        deadline_s: float | None = None,
    ) -> Embedded:
        """A vector for each input. Raises what `Router.run` raises; cancelling it takes its inputs back.

        `on_held`, `deadline_s`: as of `Job`. ColdFullError where the model is not up and as many requests
        wait as may.
        """
        key = wish.model.name, wish.profile, lanes, selection
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(wish, lanes, selection)
        queue.wish = wish
        self._refuse_beyond_bound(queue)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        member = _Member(
            trace, [b""] * len(inputs), len(inputs), done, on_held=on_held, deadline_s=deadline_s
        )
        queue.waiting += [_Part(member, place, one) for place, one in enumerate(inputs)]
        try:
            self._dispatch(queue)
            await done
        finally:
            if not done.done() or done.cancelled() or done.exception() is not None:
                self._take_back(queue, member)
            if not queue.waiting and not queue.running:
                self._queues.pop(key, None)
        return Embedded(member.vectors, list(member.finished.values()))

    def _refuse_beyond_bound(self, queue: _Queue) -> None:
        """What waits here to be joined is held as well, where the request batches before it are."""
        if not queue.waiting:
            return
        coming = self._router.coming(queue.wish.model.name, queue.selection)
        if coming is None:
            return
        if len({id(part.member) for part in queue.waiting}) >= self._router.config.holding.max_requests:
            raise ColdFullError(queue.wish.model.name, coming.eta_s)

    def _take_back(self, queue: _Queue, member: _Member) -> None:
        """Forget the inputs of a request that has ended, and cancel what nobody waits for."""
        member.done.cancel()
        queue.waiting = [part for part in queue.waiting if part.member is not member]
        for task, group in queue.running.items():
            if all(part.member.done.done() for part in group):
                task.cancel()

    def _dispatch(self, queue: _Queue) -> None:
        while queue.waiting:
            endpoints, most = self._router.capacity(queue.wish.model.name, queue.lanes)
            if len(queue.running) >= self._config.calls_per_endpoint * max(1, endpoints):
                return
            most = min(most or self._config.max_inputs, self._config.max_inputs)
            self._send(queue, self._next_group(queue, most))

    def _next_group(self, queue: _Queue, most: int) -> list[_Part]:
        window = queue.waiting[: _WINDOW * most]
        chosen = choose([len(part.input.ids) for part in window], most, self._config.max_tokens)
        taken = set(chosen)
        queue.waiting[: len(window)] = [part for at, part in enumerate(window) if at not in taken]
        return [window[at] for at in chosen]

    def _send(self, queue: _Queue, group: list[_Part]) -> None:
        task = asyncio.get_running_loop().create_task(
            self._run(queue, group, _Trouble(failures_left=2 * len(group).bit_length()))
        )
        queue.running[task] = group

        def ended(task: asyncio.Task[None]) -> None:
            del queue.running[task]
            try:
                self._dispatch(queue)
            except (
                Exception
            ) as error:  # such as a stored schema that cannot be read: nobody may wait for ever
                waiting, queue.waiting = queue.waiting, []
                _fail(waiting, error)
            if not queue.waiting and not queue.running:
                key = queue.wish.model.name, queue.wish.profile, queue.lanes, queue.selection
                if self._queues.get(key) is queue:
                    del self._queues[key]

        task.add_done_callback(ended)

    async def _run(self, queue: _Queue, group: list[_Part], trouble: _Trouble) -> None:
        """Send `group`, in halves again where one input may have spoilt it for all."""
        group = [part for part in group if not part.member.done.done()]
        if not group:
            return
        answer = _BatchAnswer(len(group))
        try:
            finished = await self._router.run(self._job(queue, group, trouble.blamed), answer)
        except (InferenceError, RouterError) as error:
            if len(group) == 1 or not _may_be_one_inputs_fault(error, trouble):
                _fail(group, error)
                return
            middle = len(group) // 2
            await self._run(queue, group[:middle], trouble)
            await self._run(queue, group[middle:], trouble)
        except Exception as error:  # a fault of ours must not leave anybody waiting
            _fail(group, error)
        else:
            _deliver(group, answer.embeddings, finished, next(self._numbers))

    def _job(self, queue: _Queue, group: list[_Part], blamed: set[str]) -> Job:
        inputs = [part.input for part in group]
        traces = list({id(part.member): part.member.trace for part in group}.values())
        request = InferenceRequest(
            id=f"embed-{next(self._numbers)}-{traces[0].trace_id_hex[:8]}",
            model=queue.wish.model.name,
            stream=False,
            max_tokens=0,
            inputs=inputs,
        )
        tokens = sum(len(one.ids) for one in inputs)
        trace = SharedTrace(traces)
        job = Job(request, queue.wish, tokens, trace, queue.lanes, selection=queue.selection, blamed=blamed)
        job.on_held = partial(_were_held, group)
        deadlines = [one for part in group if (one := part.member.deadline_s) is not None]
        if len(deadlines) == len(group):
            job.deadline_s = max(deadlines)
        return job


def _may_be_one_inputs_fault(error: Exception, trouble: _Trouble) -> bool:
    cause = error.last if isinstance(error, AttemptsExhaustedError) else error
    if not isinstance(cause, RequestRefusedError):
        trouble.failures_left -= 1
    return isinstance(cause, _ONE_INPUTS_FAULT) and trouble.failures_left >= 0


def _were_held(group: list[_Part]) -> None:
    for part in group:
        if part.member.on_held is not None:
            part.member.on_held()


def _fail(group: list[_Part], error: Exception) -> None:
    for part in group:
        if not part.member.done.done():
            part.member.done.set_exception(error)


def _deliver(group: list[_Part], vectors: Sequence[bytes], finished: Finished, number: int) -> None:
    for part, vector in zip(group, vectors, strict=True):
        member = part.member
        member.vectors[part.place] = vector
        member.finished[number] = finished
        member.left -= 1
        if member.left == 0 and not member.done.done():
            member.done.set_result(None)


class _BatchAnswer:
    """What the attempts of one request batch push to."""

    started = False
    """Never: vectors come whole, so that any attempt may begin anew."""

    def __init__(self, inputs: int) -> None:
        self.embeddings: Sequence[bytes] = ()
        self._inputs = inputs
        self._trace: AttemptTrace | None = None
        self._outcome: asyncio.Future[Outcome] | None = None

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._trace, self._outcome = trace, outcome

    def attempt_runs(self, call: Call) -> None: ...

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        del request
        return None

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        del request
        return None

    def head(self) -> None:
        if self._trace is not None:
            self._trace.answered()

    def vectors(self, vectors: Sequence[bytes]) -> None:
        self.embeddings = vectors

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        del ids, log_probs
        self._refuse()

    def scores(self, scores: Sequence[TokenScore]) -> None:
        del scores
        self._refuse()

    def text(self, delta: str, tokens: int | None = None) -> None:
        del delta, tokens
        self._refuse()

    def data(self, data: bytes) -> None:
        del data
        self._refuse()

    def delta(self, delta: Delta) -> None:
        del delta
        self._refuse()

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        del stop
        if len(self.embeddings) == self._inputs:
            self._settle((reason, usage))
        else:
            self.lost(ProtocolError(f"{len(self.embeddings)} vectors came for {self._inputs} inputs"))

    def lost(self, error: InferenceError) -> None:
        self._settle(error)

    def _refuse(self) -> None:
        raise ProtocolError("the server answered with something else than vectors")

    def _settle(self, outcome: Outcome) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)

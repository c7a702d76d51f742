"""Placement: which LoRA adapters this process believes the endpoints hold, and who sends one that is missing.

A belief only: an engine that has evicted an adapter says so when it is asked for it, and is sent the weights
again. Of many requests that want the same missing adapter one brings the weights, while the others wait until
the engine has taken them; sending them along with each would cost megabytes a request, and asking without
them would have every one refused. Other processes are not asked: an adapter that comes twice does no harm.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType

from inference.sink import Sink
from model_registry.entities import Endpoint

WAIT_S = 1.0
"""How long from the start of a sending other requests wait for it. Engines take adapters in as they queue
requests, long before the first token that says so: past it requests go without and most likely are served."""
MAX_PER_ENDPOINT = 1024
_Address = tuple[str, str | None, str]


class _Held:
    """What one endpoint is believed to hold."""

    __slots__ = ("ids", "sending")

    def __init__(self) -> None:
        self.ids: OrderedDict[int, object] = OrderedDict()
        """Task id -> a mark of the sending that the belief rests on."""
        self.sending: dict[int, Turn] = {}
        """Task id -> who is sending it, until it is accepted or gives up."""


class Placement:
    """Beliefs by endpoint name; owned by one event loop."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._addresses: dict[str, _Address] = {}

    def holds(self, endpoint: str, task_id: int) -> bool:
        """Whether the endpoint is believed to hold an adapter."""
        held = self._held.get(endpoint)
        return held is not None and task_id in held.ids

    async def turn(self, endpoint: Endpoint, task_id: int, *, insist: bool = False) -> Turn:
        """Whether a request sends the weights; waits for one that is sending them. `insist`: it does."""
        held, loop = self._of(endpoint), asyncio.get_running_loop()
        while not insist:
            mark = held.ids.get(task_id)
            if mark is not None:
                held.ids.move_to_end(task_id)
                return Turn(held, task_id, sends=False, mark=mark)
            sending = held.sending.get(task_id)
            if sending is None:
                break
            left_s = sending.began_s + WAIT_S - loop.time()
            if left_s <= 0:
                return Turn(held, task_id, sends=False)
            await asyncio.wait((sending.over,), timeout=left_s)
        return Turn(held, task_id, sends=True)

    def forget(self, endpoint: str) -> None:
        """Believe nothing of an endpoint any more: it was unreachable, and may have started anew."""
        if (held := self._held.get(endpoint)) is not None:
            held.ids.clear()

    def retain(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget endpoints that are gone, not ready, or somewhere else."""
        if not self._addresses:
            return
        ready = {endpoint.name: _address(endpoint) for endpoint in endpoints if endpoint.state == "ready"}
        for name in [name for name, address in self._addresses.items() if ready.get(name) != address]:
            del self._held[name], self._addresses[name]

    def _of(self, endpoint: Endpoint) -> _Held:
        held = self._held.get(endpoint.name)
        if held is None:
            held = self._held[endpoint.name] = _Held()
            self._addresses[endpoint.name] = _address(endpoint)
        return held


class Turn:
    """One request's part in bringing an adapter to an endpoint, within a `with`."""

    def __init__(self, held: _Held, task_id: int, *, sends: bool, mark: object | None = None) -> None:
        self.sends = sends
        """The weights go along with this request."""
        self._held = held
        self._task_id = task_id
        self._mark = mark
        loop = asyncio.get_running_loop()
        self.began_s = loop.time()
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when the weights were accepted, or not."""
        if sends:
            held.sending[task_id] = self

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whoever waits for weights that were not accepted takes its own turn."""
        self._sent()

    def accepted(self, task_id: int) -> None:
        """The engine took the request, and holds the adapter that came with it."""
        ids = self._held.ids
        ids[task_id] = object()
        if len(ids) > MAX_PER_ENDPOINT:
            ids.popitem(last=False)
        self._sent()

    def _sent(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
            if self._held.sending.get(self._task_id) is self:
                del self._held.sending[self._task_id]

    def missed(self) -> None:
        """The engine said that it has not the adapter; a belief that is newer than this turn's stays."""
        if self._held.ids.get(self._task_id) is self._mark:
            self._held.ids.pop(self._task_id, None)

    def watching(self, sink: Sink, task_id: int) -> Sink:
        """`sink`, with the acceptance noticed on its way."""
        return _Watched(sink, self, task_id)


class _Watched:
    """A sink whose other calls go straight to the one behind it."""

    def __init__(self, sink: Sink, turn: Turn, task_id: int) -> None:
        self._sink = sink
        self._turn = turn
        self._task_id = task_id
        self.tokens = sink.tokens
        self.scores = sink.scores
        self.text = sink.text
        self.vectors = sink.vectors
        self.data = sink.data
        self.delta = sink.delta
        self.flush = sink.flush
        self.end = sink.end
        self.lost = sink.lost

    def head(self) -> None:
        self._turn.accepted(self._task_id)
        self._sink.head()


def _address(endpoint: Endpoint) -> _Address:
    return endpoint.http, endpoint.grpc, endpoint.target

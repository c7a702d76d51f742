"""Gossip: what the other gateway processes have in flight, which prefixes they sent where, and which
endpoints are late for them, each with an age.

Owned by the event loop of one process. It is told with the reports on slices, so that it needs no connection
or task of its own; a message that is lost is made good by a later one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from router.gossip_message import (
    Hint,
    Lateness,
    Load,
    block_key,
    decode,
    encode,
    endpoint_key,
    sampled,
)
from router.outliers import Late

BYTES_PER_S = 1024
"""What one process sends at most."""
_TTL_S = 10.0
"""How long what another process said of a load counts."""
_LATE_TTL_S = 2.0
"""How long what another process said of a late endpoint counts; it is told with every message."""
_AGAIN_S = 2.0
"""How often a load that has not changed is told again."""
_HINTS_KEPT_S = 120.0
_MOST_HINTS = 65_536
_HINTS_WAITING = 256
_LEAST_HINT_BYTES = 9


class InFlight(Protocol):
    """What a process has at an endpoint."""

    @property
    def requests(self) -> int: ...

    @property
    def prefill_tokens(self) -> int: ...

    @property
    def decode_tokens(self) -> int: ...


class Others(NamedTuple):
    """What all other processes have at an endpoint, as far as they have told."""

    requests: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    age_s: float = 0.0
    """Of the oldest report in it."""


class Gossip:
    """`tell` and `hear` are what `Exchange.gossips` takes."""

    def __init__(
        self,
        loads: Callable[[], Mapping[str, InFlight]],
        period_s: float,
        late: Callable[[float], Mapping[str, Late]] = lambda _: {},
    ) -> None:
        """`late`: endpoints that are late here, as of a time of the loop."""
        self._loads = loads
        self._late = late
        self._budget = int(BYTES_PER_S * period_s)
        self._loop = asyncio.get_running_loop()
        self._told: dict[int, tuple[Load, float]] = {}
        self._to_tell: deque[tuple[str, Sequence[int]]] = deque(maxlen=_HINTS_WAITING)
        """Endpoints and the blocks of what went there, the latest first."""
        self._heard: dict[int, dict[str, tuple[Load, float]]] = {}
        self._hints: OrderedDict[int, dict[int, float]] = OrderedDict()
        """When each block was last sent to which endpoint, both by their keys."""
        self._heard_late: dict[int, dict[str, tuple[Late, float]]] = {}
        """By endpoint and process, each with when it was heard."""

    def dispatched(self, endpoint: str, blocks: Sequence[int]) -> None:
        """A prompt of these blocks was sent to `endpoint`: the others should know."""
        if blocks:
            self._to_tell.appendleft((endpoint, blocks))

    def others(self, endpoint: str) -> Others:
        """What the other processes have at `endpoint`."""
        now_s = self._loop.time()
        fresh = [
            (load, now_s - at_s)
            for load, at_s in self._heard.get(endpoint_key(endpoint), {}).values()
            if now_s - at_s <= _TTL_S
        ]
        return Others(
            sum(load.requests for load, _ in fresh),
            sum(load.prefill_tokens for load, _ in fresh),
            sum(load.decode_tokens for load, _ in fresh),
            max((age_s for _, age_s in fresh), default=0.0),
        )

    def late(self, endpoint: str, now_s: float) -> Sequence[Late]:
        """What the other processes saw of `endpoint` being late; none of most. `now_s` is the loop's."""
        if not self._heard_late:
            return ()
        heard = self._heard_late.get(endpoint_key(endpoint), {})
        return [late for late, at_s in heard.values() if now_s - at_s <= _LATE_TTL_S]

    def held(self, blocks: Sequence[int], within_s: float = _HINTS_KEPT_S) -> dict[int, int]:
        """Leading blocks of a prompt that other processes sent somewhere lately, by `endpoint_key`."""
        hints, found = self._hints, dict[int, int]()
        if not hints:
            return found
        since_s = self._loop.time() - within_s
        for depth in range(len(blocks), 0, -1):
            if (places := hints.get(block_key(blocks[depth - 1]))) is not None:
                for endpoint, at_s in places.items():
                    if at_s > since_s:
                        found.setdefault(endpoint, depth)
        return found

    def tell(self) -> str:
        """The next message; empty when there is nothing to say."""
        now_s = self._loop.time()
        late = [
            Lateness(endpoint_key(name), one.in_a_row, max(0, int(1000 * (now_s - one.began_s))))
            for name, one in self._late(now_s).items()
        ]
        latest = islice(self._to_tell, self._budget // _LEAST_HINT_BYTES)
        hints = [Hint(endpoint_key(endpoint), sampled(blocks)) for endpoint, blocks in latest]
        text, sent = encode(self._news(now_s), hints, self._budget, late)
        for load in sent.loads:
            self._told[load.endpoint] = load, now_s
            if load.requests == 0:
                del self._told[load.endpoint]
        for _ in sent.hints:
            self._to_tell.popleft()
        return text

    def hear(self, worker: str, text: str) -> None:
        """Take another process's message; one that cannot be read, such as of another version, is left."""
        try:
            message = decode(text)
        except ValueError:
            return
        now_s = self._loop.time()
        for load in message.loads:
            of_endpoint = self._heard.setdefault(load.endpoint, {})
            of_endpoint[worker] = load, now_s
            for name in [name for name, (_, at_s) in of_endpoint.items() if now_s - at_s > _TTL_S]:
                del of_endpoint[name]
        for late in message.late:
            of_process = self._heard_late.setdefault(late.endpoint, {})
            of_process[worker] = Late(late.in_a_row, now_s - late.age_ms / 1000), now_s
        if self._heard_late:
            self._forget_late(now_s)
        for hint in message.hints:
            for key in hint.blocks:
                self._hints.setdefault(key, {})[hint.endpoint] = now_s
                self._hints.move_to_end(key)
        while len(self._hints) > _MOST_HINTS:
            self._hints.popitem(last=False)

    def _forget_late(self, now_s: float) -> None:
        for endpoint, heard in list(self._heard_late.items()):
            for worker in [worker for worker, (_, at_s) in heard.items() if now_s - at_s > _LATE_TTL_S]:
                del heard[worker]
            if not heard:
                del self._heard_late[endpoint]

    def _news(self, now_s: float) -> list[Load]:
        """Loads that have changed, or were told long ago, those that changed most first."""
        present = {
            endpoint_key(name): Load(
                endpoint_key(name), load.requests, load.prefill_tokens, load.decode_tokens
            )
            for name, load in self._loads().items()
            if load.requests
        }
        gone = {key: Load(key, 0, 0, 0) for key in self._told.keys() - present.keys()}
        found = []
        for key, load in (present | gone).items():
            before, told_s = self._told.get(key, (Load(key, 0, 0, 0), now_s))
            change = sum(abs(now - then) for now, then in zip(load[2:], before[2:], strict=True))
            change += 100 * abs(load.requests - before.requests)
            if change or now_s - told_s >= _AGAIN_S:
                found.append((change, now_s - told_s, load))
        found.sort(key=lambda one: (one[0], one[1]), reverse=True)
        return [load for _, _, load in found]

"""Census: what actuators find, held against the records, from time to time and in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from controller.actuators.port import Actuator, ActuatorError, Found, key_on
from controller.replicas.adoption import Nameless
from controller.replicas.config import ReplicasConfig
from model_registry.leadership import boot_s
from model_registry.replicas import Replica

log = logging.getLogger(__name__)

FIRST_LOOK_S = 0.2
"""How long a round waits for a pool to be looked at for the first time."""


class _Look(NamedTuple):
    began_s: float
    found: Sequence[Found]
    unheard: Collection[str]
    """Servers that did not tell."""


class Census:
    """Of one controller while it leads."""

    def __init__(self, config: ReplicasConfig, on_first: Callable[[], None] = lambda: None) -> None:
        self._config = config
        self._on_first = on_first
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._began: dict[str, float] = {}
        self._looks: dict[str, _Look] = {}
        self._asked_s: dict[str, float] = {}
        """Pools that were to be looked at for what nothing is known of, and since when."""
        self._tried_s: dict[str, float] = {}
        """When the last look that has ended began, whatever it came to."""
        self._nameless_since: dict[tuple[str, str], float] = {}
        self._named_s: dict[tuple[str, str], float] = {}
        """When there was last a record of what has this key in this pool."""
        self._known_since: dict[tuple[str, str], float] = {}
        """When a record first had this handle: looks that began before prove nothing of it."""

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return list(self._tasks.values())

    def look(self, actuators: Mapping[str, Actuator]) -> None:
        """Begin a look at each pool whose last one is old enough; forget all others."""
        now_s = boot_s()
        for memory in (self._began, self._looks, self._tried_s):
            for pool in memory.keys() - actuators.keys():
                del memory[pool]
        for pool, actuator in actuators.items():
            if now_s - self._began.get(pool, 0.0) >= self._config.look_s:
                self._begin(pool, actuator)

    async def first_look(self, actuators: Mapping[str, Actuator], pools: Collection[str]) -> set[str]:
        """Those of `pools` that have not been looked at since they were first asked for here.

        Begins these looks and waits for a moment; `on_first` is called when a later one has ended.
        """
        now_s = boot_s()
        self._asked_s = {pool: self._asked_s.get(pool, now_s) for pool in pools if pool in actuators}
        for pool in self._unlooked():
            self._begin(pool, actuators[pool])
        if looks := [self._tasks[pool] for pool in self._unlooked()]:
            await asyncio.wait(looks, timeout=FIRST_LOOK_S)
        return self._unlooked()

    def lost(self, replicas: Iterable[Replica]) -> set[str]:
        """Names of those that were there and are not; what is on a server that does not tell may still be."""
        now_s, lost, known = boot_s(), set[str](), dict[tuple[str, str], float]()
        for replica in replicas:
            if not replica.handle or replica.state in {"stopping", "failed"}:
                continue
            key = replica.name, replica.handle
            since_s = known[key] = self._known_since.get(key, now_s)
            look = self._looks.get(replica.pool)
            if (
                look is not None
                and since_s < look.began_s
                and replica.place not in look.unheard
                and not any(replica.name == one.replica or replica.handle == one.handle for one in look.found)
            ):
                lost.add(replica.name)
        self._known_since = known
        return lost

    def nameless(self, replicas: Iterable[Replica]) -> list[Nameless]:
        """What runs without a record, by looks that began after there was one at the latest."""
        now_s, looks = boot_s(), self._looks
        named = {
            (one.pool, key)
            for one in replicas
            for key in (one.name, key_on(one.place, one.target or one.model))
        }
        self._named_s |= dict.fromkeys(named, now_s)
        found = {
            (pool, one.key): one
            for pool, look in looks.items()
            for one in look.found
            if look.began_s > self._named_s.get((pool, one.key), 0.0)
        }
        self._named_s = {
            (pool, key): at_s
            for (pool, key), at_s in self._named_s.items()
            if pool in self._began and ("@" in key or pool not in looks or at_s >= looks[pool].began_s)
        }
        self._nameless_since = {key: self._nameless_since.get(key, now_s) for key in found}
        return [
            Nameless(key[0], one, max(0.0, looks[key[0]].began_s - since_s), key in self._named_s)
            for (key, one), since_s in zip(found.items(), self._nameless_since.values(), strict=True)
        ]

    async def drop(self) -> None:
        """Forget everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for memory in (
            self._tasks,
            self._began,
            self._looks,
            self._asked_s,
            self._tried_s,
            self._nameless_since,
            self._named_s,
            self._known_since,
        ):
            memory.clear()

    def _unlooked(self) -> set[str]:
        return {pool for pool, since_s in self._asked_s.items() if self._tried_s.get(pool, 0.0) < since_s}

    def _begin(self, pool: str, actuator: Actuator) -> None:
        if pool in self._tasks:
            return
        self._began[pool] = boot_s()
        task = asyncio.create_task(self._look(pool, actuator), name=f"census of {pool}")
        self._tasks[pool] = task
        task.add_done_callback(partial(self._ended, pool))

    def _ended(self, pool: str, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(pool, None)
        if pool in self._asked_s:
            self._on_first()

    async def _look(self, pool: str, actuator: Actuator) -> None:
        began_s = boot_s()
        try:
            listing = await actuator.found()
        except ActuatorError as error:
            log.warning("a pool could not be looked at", extra={"pool": pool, "error": str(error)})
        except Exception:
            log.exception("looking at a pool failed unexpectedly", extra={"pool": pool})
        else:
            for server, why in listing.unheard.items():
                what = {"pool": pool, "server": server, "error": why}
                log.warning("a server could not be looked at", extra=what)
            self._looks[pool] = _Look(began_s, listing.found, listing.unheard.keys())
        self._tried_s[pool] = began_s

"""Observation: what one look at a model server told about one endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from controller.config import ControllerConfig
from controller.desired import Desired, Schema
from controller.probing import Probing
from inference.errors import InferenceError, SchemaError
from model_registry.entities import Endpoint, LaneName, ServerRef

_log = logging.getLogger(__name__)


class Introspect(Protocol):
    """`inference.introspection.introspect`; raises SchemaError and InferenceError."""

    def __call__(self, server: ServerRef, target: str, lane: str) -> Awaitable[Schema]: ...


class Health(Protocol):
    """`inference.control.health`: whether a target can take requests now."""

    def __call__(self, server: ServerRef, target: str, lane: LaneName) -> Awaitable[bool]: ...


@dataclass(frozen=True, slots=True)
class Observation:
    """`schema` is None where the server was not asked for it, or could not tell."""

    healthy: bool
    reason: str | None = None
    """Why it is not healthy."""
    schema: Schema | None = None
    schema_error: bool = False
    """The server answered, with a schema that is not known."""


class _Look(NamedTuple):
    """A look under way, and what it is for."""

    wanted: Desired
    task: asyncio.Task[Observation]


class Observer:
    """Looks at model servers through the functions it is given; one that is slow holds up no other."""

    def __init__(
        self,
        introspect: Introspect,
        health: Health,
        config: ControllerConfig,
        probing: Probing | None = None,
    ) -> None:
        """`probing`: None takes servers at their word."""
        self._introspect = introspect
        self._health = health
        self._config = config
        self._probing = probing
        self._looks: dict[str, _Look] = {}

    async def observe_all(
        self, desired: Mapping[str, Desired], registered: Mapping[str, Endpoint], patience_s: float
    ) -> dict[str, Observation]:
        """What was learnt within `patience_s`; a look that takes longer goes on and counts next time.

        Unless something else is wanted by then: what was learnt for that tells nothing of this.
        """
        for name in [name for name, look in self._looks.items() if desired.get(name) != look.wanted]:
            self._looks.pop(name).task.cancel()
        for name, wanted in desired.items():
            if name not in self._looks:
                work = self.observe(wanted, registered.get(name))
                self._looks[name] = _Look(wanted, asyncio.create_task(work, name=f"look at {name}"))
        if self._looks:
            await asyncio.wait([look.task for look in self._looks.values()], timeout=patience_s)
        done = [name for name, look in self._looks.items() if look.task.done()]
        return {name: _learnt(name, self._looks.pop(name).task) for name in done}

    async def close(self) -> None:
        """Stop looking."""
        tasks = [look.task for look in self._looks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._looks.clear()

    async def observe(self, wanted: Desired, registered: Endpoint | None) -> Observation:
        """A probe only while the endpoint serves as wanted; otherwise the schema is asked for, too."""
        try:
            if registered is not None and registered.state == "ready" and wanted.is_met_by(registered):
                probe = await self._probe(wanted.server, registered.target, registered.lane)
                return await self._infer(wanted, registered, probe, serves=True)
            async with asyncio.timeout(self._config.introspection_timeout_s):
                schema = await self._introspect(wanted.server, wanted.target, wanted.deployment.lane)
            probe = await self._probe(wanted.server, schema.target, schema.lane)
        except SchemaError as error:
            return Observation(False, str(error), schema_error=True)
        except InferenceError as error:
            return Observation(False, str(error))
        except TimeoutError:
            return Observation(False, f"{wanted.server.http} did not describe {wanted.target!r} in time")
        seen = Observation(probe.healthy, probe.reason, schema)
        return await self._infer(wanted, wanted.endpoint(schema), seen, serves=False)

    async def _infer(
        self, wanted: Desired, endpoint: Endpoint, seen: Observation, *, serves: bool
    ) -> Observation:
        """What was seen, unless the server lies."""
        if self._probing is None or not seen.healthy:
            return seen
        why_not = await self._probing.why_not(endpoint, embeds=wanted.embeds, serves=serves)
        return seen if why_not is None else replace(seen, healthy=False, reason=why_not)

    async def _probe(self, server: ServerRef, target: str, lane: LaneName) -> Observation:
        try:
            async with asyncio.timeout(self._config.probe_timeout_s):
                healthy = await self._health(server, target, lane)
        except TimeoutError:
            within = f"{self._config.probe_timeout_s:g} s"
            return Observation(False, f"{server.http} did not answer a health probe within {within}")
        return Observation(healthy, None if healthy else f"{target!r} on {server.http} is not ready")


def _learnt(name: str, task: asyncio.Task[Observation]) -> Observation:
    """What a look came to; a server that answers like no other keeps the controller from no other server."""
    error = task.exception()
    if error is None:
        return task.result()
    _log.error("a look at a model server failed unexpectedly", extra={"endpoint": name}, exc_info=error)
    return Observation(False, f"its answer could not be understood ({type(error).__name__}: {error})")

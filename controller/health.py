"""Health: one look at every target, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import aiohttp

from controller.config import ControllerConfig
from controller.reconcile import observe
from controller.targets import Observation, Target
from inference.control import health
from inference.errors import InferenceError, SchemaError
from inference.introspection import introspect
from inference.schema import Schema


class Health:
    """What is known of each target; owned by one controller."""

    def __init__(self, config: ControllerConfig, session: aiohttp.ClientSession) -> None:
        self._config = config
        self._session = session
        self._seen: dict[str, tuple[Target, Observation]] = {}

    async def look(self, targets: Iterable[Target]) -> Mapping[str, Observation]:
        """Look at all targets; a slow one delays none beyond `health_timeout_s`."""
        listed = list(targets)
        observations = await asyncio.gather(*(self._one(target) for target in listed))
        self._seen = {
            target.name: (target, observation)
            for target, observation in zip(listed, observations, strict=True)
        }
        return {name: observation for name, (_, observation) in self._seen.items()}

    async def _one(self, target: Target) -> Observation:
        known, before = self._seen.get(target.name, (target, Observation()))
        if known != target:
            before = Observation()  # it is another server or asked for otherwise
        try:
            async with asyncio.timeout(self._config.health_timeout_s):
                schema, error = await self._ask(target, before)
        except TimeoutError:
            schema, error = None, f"no answer within {self._config.health_timeout_s:g} s"
        except (InferenceError, SchemaError) as failure:
            schema, error = None, str(failure)
        return observe(before, schema, error, self._config)

    async def _ask(self, target: Target, before: Observation) -> tuple[Schema | None, str | None]:
        """A healthy server is asked for its schema once, and again whenever it comes back."""
        if before.schema is None or before.failures:
            found = await introspect(target.server, target.model_name, target.deployment.lane, self._session)
        else:
            found = before.schema
        if await health(target.server, found.target, found.lane, self._session):
            return found, None
        return None, f"{found.target!r} on {target.server.http} is not ready"

"""A Service's EndpointSlices, followed: listed once, then kept true by a watch.

Protocol: `kubernetes.io/docs/reference/using-api/api-concepts`. A watch that ends goes on from the last
version it told; one whose version is no longer kept (410) begins anew with a list. What has been out of touch
for longer than `stale_after_s` is told as an error, never as "no pods".
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from controller.actuators.kubernetes.api import Api
from controller.actuators.kubernetes.errors import GoneError, KubernetesError, error_of
from controller.actuators.kubernetes.resources import Resource, slices
from controller.actuators.kubernetes.slices import SERVICE_LABEL, Slice
from controller.actuators.port import ActuatorError

_log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
"""Between two calls; it doubles until a watch has lasted."""
LASTING_S = 1.0


class SliceWatch:
    """Of one Service. Followed from the first `slices` on, until `close`."""

    def __init__(
        self, api: Api, namespace: str, service: str, *, watch_s: float = 60.0, stale_after_s: float = 15.0
    ) -> None:
        """`watch_s`: how long one watch lasts: a connection that died unnoticed is noticed then."""
        self._api = api
        self._resource: Resource = slices(namespace)
        self._selector = f"{SERVICE_LABEL}={service}"
        self._watch_s = watch_s
        self._stale_after_s = stale_after_s
        self._slices: dict[str, Slice] | None = None
        self._lost: tuple[float, ActuatorError] | None = None
        self._pause_s = FIRST_PAUSE_S
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def slices(self) -> tuple[Slice, ...]:
        """Those that there are; waits for the first list. Raises ActuatorError while nothing is known."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name=f"watch {self._selector}")
        while self._slices is None and self._lost is None:
            await self._changed.wait()
        if self._lost is not None:
            since, error = self._lost
            if self._slices is None or asyncio.get_running_loop().time() - since > self._stale_after_s:
                raise error
        assert self._slices is not None
        return tuple(self._slices.values())

    async def close(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _follow(self) -> None:
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._watch(version)
            except GoneError as error:
                _log.info(
                    "EndpointSlices are listed anew", extra={"service": self._selector, "reason": str(error)}
                )
            except ActuatorError as error:
                self._lose(error)
            except Exception as error:
                _log.exception("following EndpointSlices failed unexpectedly")
                self._lose(KubernetesError(f"EndpointSlices could not be followed: {error!r}"))
            await self._pause()

    async def _list(self) -> str:
        answer = await self._api.call("list", self._resource, labelSelector=self._selector)
        try:
            self._slices = {str(item["metadata"]["name"]): item for item in answer.get("items") or ()}
            version = str(answer["metadata"]["resourceVersion"])
        except (KeyError, TypeError) as error:
            raise KubernetesError(f"the list of {self._resource} lacks {error}") from error
        if not self._slices:
            _log.warning("no EndpointSlices: is there such a Service?", extra={"service": self._selector})
        self._found()
        return version

    async def _watch(self, version: str) -> str:
        """Follow the changes since `version` until that ends, by whoever's doing; the last version told."""
        query = {"labelSelector": self._selector, "resourceVersion": version}
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._api.watch(self._resource, self._watch_s, **query) as lines:
                self._found()
                async for line in lines:
                    version = self._take(line, version)
        except GoneError:
            raise
        except ValueError as error:  # aiohttp's, of a line beyond all bounds
            raise GoneError(f"an event could not be read ({error})") from error
        except KubernetesError as error:
            self._lose(error)
        if loop.time() - began > LASTING_S:
            self._pause_s = FIRST_PAUSE_S
        await self._pause()
        return version

    def _take(self, line: bytes, version: str) -> str:
        """Apply one event; the version that it brings."""
        try:
            event: Any = json.loads(line)
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise error_of(
                    "watch", self._resource, int(item.get("code", 500)), str(item.get("message", ""))
                )
            metadata = item["metadata"]
            if kind != "BOOKMARK":
                self._apply(str(kind), str(metadata["name"]), item)
            return str(metadata.get("resourceVersion", version))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GoneError(f"an event could not be understood ({line[:100]!r})") from error

    def _apply(self, kind: str, name: str, item: Slice) -> None:
        assert self._slices is not None
        if kind == "DELETED":
            self._slices.pop(name, None)
        else:
            self._slices[name] = item

    def _found(self) -> None:
        self._lost = None
        self._changed.set()

    def _lose(self, error: ActuatorError) -> None:
        if self._lost is None:
            _log.warning("EndpointSlices lost", extra={"service": self._selector, "error": str(error)})
            self._lost = asyncio.get_running_loop().time(), error
        else:
            self._lost = self._lost[0], error
        self._changed.set()

    async def _pause(self) -> None:
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

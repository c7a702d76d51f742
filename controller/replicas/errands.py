"""Errands: the starts and stops under way, one task for a replica at most.

What they came to is kept until it has been recorded. A stop that failed is tried again, ever less often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Literal, NamedTuple

from controller.actuators.port import Actuator, ActuatorError, Running
from controller.replicas.fence import Fence, NotLeadingError
from model_registry.entities import Deployment
from model_registry.leadership import boot_s
from model_registry.replicas import Replica

_log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
Verb = Literal["start", "stop"]


class Outcome(NamedTuple):
    """What an errand came to."""

    verb: Verb
    running: Running | None = None
    error: str | None = None


class _Errand(NamedTuple):
    verb: Verb
    task: asyncio.Task[None]


class _Retry(NamedTuple):
    wait_s: float
    at_s: float


class Errands:
    """Of one controller while it leads."""

    def __init__(self, fence: Fence, ended: Callable[[], None]) -> None:
        """`ended` is called whenever there is an outcome."""
        self._fence = fence
        self._ended = ended
        self._errands: dict[str, _Errand] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._started: set[str] = set()
        self._retries: dict[str, _Retry] = {}

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return [errand.task for errand in self._errands.values()]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """By replica: what has not been recorded yet."""
        return dict(self._outcomes)

    def recorded(self, outcomes: Iterable[str]) -> None:
        """Forget these."""
        for name in outcomes:
            self._outcomes.pop(name, None)

    def knows(self, names: Iterable[str]) -> None:
        """Forget what is remembered of any other replica."""
        known = set(names)
        self._started &= known
        self._retries = {name: retry for name, retry in self._retries.items() if name in known}

    def tend(self, replica: Replica, actuator: Actuator, deployment: Deployment | None) -> None:
        """See to it that what the record asks for is under way."""
        present, outcome = self._errands.get(replica.name), self._outcomes.get(replica.name)
        if outcome is not None and outcome.verb == "stop":
            return  # it has gone while its record was being written
        match replica.state:
            case "starting" if deployment is not None and present is None:
                if replica.name not in self._started:
                    self._begin(replica, "start", self._start(replica, actuator, deployment))
            case "stopping" | "failed" if present is None or present.verb == "start":
                retry = self._retries.get(replica.name)
                if retry is None or boot_s() >= retry.at_s:
                    starting = None if present is None else present.task
                    self._begin(replica, "stop", self._stop(replica, actuator, deployment, starting))

    async def drop(self) -> None:
        """Let go of everything: another controller goes on with it."""
        tasks = [errand.task for errand in self._errands.values()]
        self._errands.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outcomes.clear()
        self._started.clear()
        self._retries.clear()

    def _begin(self, replica: Replica, verb: Verb, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"{verb} {replica.name}")
        self._errands[replica.name] = _Errand(verb, task)
        task.add_done_callback(lambda _: self._over(replica.name, task))

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        errand = self._errands.get(name)
        if errand is not None and errand.task is task:
            del self._errands[name]
        self._ended()

    async def _start(self, replica: Replica, actuator: Actuator, deployment: Deployment) -> None:
        try:
            _log.info("replica starts", extra=self._told(replica))
            running = await actuator.start(replica, deployment)
        except NotLeadingError as error:
            _log.warning("replica not started", extra={"replica": replica.name, "error": str(error)})
            return
        except ActuatorError as error:
            self._outcomes[replica.name] = Outcome("start", error=str(error))
        except Exception as error:
            _log.exception("starting a replica failed unexpectedly", extra={"replica": replica.name})
            self._outcomes[replica.name] = Outcome("start", error=f"{type(error).__name__}: {error}")
        else:
            self._outcomes[replica.name] = Outcome("start", running)
        self._started.add(replica.name)

    async def _stop(
        self,
        replica: Replica,
        actuator: Actuator,
        deployment: Deployment | None,
        starting: asyncio.Task[None] | None,
    ) -> None:
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
            self._outcomes.pop(replica.name, None)
        try:
            _log.info("replica stops", extra=self._told(replica))
            await actuator.stop(replica, deployment)
        except NotLeadingError as error:
            _log.warning("replica not stopped", extra={"replica": replica.name, "error": str(error)})
        except ActuatorError as error:
            self._again(replica, str(error))
        except Exception as error:
            _log.exception("stopping a replica failed unexpectedly", extra={"replica": replica.name})
            self._again(replica, f"{type(error).__name__}: {error}")
        else:
            self._retries.pop(replica.name, None)
            self._outcomes[replica.name] = Outcome("stop")

    def _told(self, replica: Replica) -> dict[str, object]:
        """What the log says of an act; asks the fence first."""
        token = self._fence.token()
        return {"replica": replica.name, "token": token, "place": replica.place, "reason": replica.reason}

    def _again(self, replica: Replica, error: str) -> None:
        before = self._retries.get(replica.name)
        wait_s = FIRST_RETRY_S if before is None else min(2 * before.wait_s, LAST_RETRY_S)
        self._retries[replica.name] = _Retry(wait_s, boot_s() + wait_s)
        _log.warning(
            "replica not stopped", extra={"replica": replica.name, "error": error, "retry_s": wait_s}
        )

"""Builder: takes builds from Redis one after the other, runs them, and stores their engines.

It may be killed at any moment. What steps have finished is in the cache, an engine is published by one
rename and stored by one script, which refuses a builder whose claim went to another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex

from engine_builder.build.job import Job
from engine_builder.config import BuilderConfig
from engine_builder.errors import BuilderError, BuildStoppedError, ClaimLostError, NoRoomError, StepError
from model_registry.build_jobs.entities import PRESENT_S, Able, BuildClaim, BuildError
from model_registry.build_jobs.errors import BuildClaimLostError
from model_registry.build_jobs.store import BuildStore
from model_registry.engines import Engine
from model_registry.errors import RegistryError, RegistryUnavailableError
from model_registry.store import RegistryStore

_log = logging.getLogger(__name__)
_FORGET_EVERY_S = 60.0
_EXPECTED = (BuilderError, RegistryError, OSError)


Make = Callable[[Job], Engine]
"""Makes and publishes an engine, in a thread; calls `confirm` just before the rename. Raises BuilderError."""


class Builder:
    """One process's; `run` is its task, `end` what SIGTERM calls."""

    def __init__(
        self, builds: BuildStore, registry: RegistryStore, make: Make, able: Able, config: BuilderConfig
    ) -> None:
        self.name = f"{socket.gethostname()}.{os.getpid()}.{token_hex(4)}"
        """Unlike every other builder's that ever was."""
        self.job: Job | None = None
        """What it works on."""
        self._builds = builds
        self._registry = registry
        self._make = make
        self._able = able
        self._config = config
        self._ending = asyncio.Event()
        self._away = False
        """Whether there is work could not be told when it was looked for last."""
        self._forget_at_s = 0.0

    def end(self) -> None:
        """Take no further build; finish the step that runs if it ends in time, then give the build back."""
        if self._ending.is_set():
            return
        self._ending.set()
        if (job := self.job) is not None:
            job.stop.between_steps("the builder ends")
            loop = asyncio.get_running_loop()
            loop.call_later(self._config.drain_s, job.stop.now, "the builder ends")

    async def run(self, *, once: bool = False) -> bool:
        """Work until `end`; with `once` until there is no work, or none can be seen.

        Returns whether every build went well, and that there is no other could be seen.
        """
        present = asyncio.create_task(self._say_present())
        try:
            return await self._look_for_work(once=once)
        finally:
            present.cancel()
            await asyncio.gather(present, return_exceptions=True)

    async def _say_present(self) -> None:
        """So that those who wait for a builder can be told whether there is any."""
        while True:
            with suppress(RegistryUnavailableError):
                build = "" if self.job is None else self.job.claim.build.id
                await self._builds.present(self.name, self._able, build)
            await asyncio.sleep(PRESENT_S)

    async def _look_for_work(self, *, once: bool) -> bool:
        well = True
        while not self._ending.is_set():
            claim = await self._claim()
            if claim is not None and self._ending.is_set():
                with suppress(RegistryError):  # else it lapses
                    await self._builds.release(claim, counts=False)
            elif claim is not None:
                well = await self._work(claim) and well
            elif once:
                return well and not self._away
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._config.poll_s):
                        await self._ending.wait()
        return well

    async def _claim(self) -> BuildClaim | None:
        try:
            await self._forget()
            claim = await self._builds.claim(self.name, self._able, self._config.lease_s)
        except RegistryUnavailableError as error:
            self._away = True
            _log.warning("no work can be taken: Redis is away", extra={"reason": str(error)})
            return None
        self._away = False
        return claim

    async def _forget(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._forget_at_s:
            self._forget_at_s = now_s + _FORGET_EVERY_S
            await self._builds.forget_ended()

    async def _work(self, claim: BuildClaim) -> bool:
        job = self.job = Job(self._builds, claim, self._config.lease_s, self._config.heartbeat_s)
        facts = {"build": claim.build.id, "engine": claim.build.asked.engine, "attempt": claim.build.attempts}
        _log.info("build taken", extra=facts)
        beating = asyncio.create_task(job.keep_beating())
        try:
            engine = await asyncio.to_thread(self._make, job)
            await job.said(lambda: self._store(engine, claim))
            await self._last_words(job)
            await job.said(lambda: self._builds.finish(claim, "succeeded"))
        except Exception as error:
            if job.lost or isinstance(error, BuildClaimLostError | ClaimLostError):
                _log.warning("build lost to another builder", extra=facts)
            elif isinstance(error, _EXPECTED):
                _log.warning("build not done", extra={**facts, "reason": str(error)})
                await self._give_up(job, error)
            else:
                _log.exception("build failed by a mistake of ours", extra=facts)
                await self._give_up(job, error)
            return False
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            self.job = None
        _log.info("build succeeded", extra=facts)
        return True

    async def _store(self, engine: Engine, claim: BuildClaim) -> None:
        """Make the engine known; one that is known already keeps what was found about it since."""
        if await self._registry.get("Engine", engine.name) is None:
            await self._registry.transact([engine], held=claim)

    async def _give_up(self, job: Job, error: Exception) -> None:
        """End the build, or let others have it, as the error says."""
        claim, why = job.claim, _told(error)
        with suppress(BuildClaimLostError):
            await self._last_words(job)
            if isinstance(error, BuildStoppedError) and not job.cancelled:
                await job.said(lambda: self._builds.release(claim, counts=False))
            elif isinstance(error, BuildStoppedError):
                await job.said(lambda: self._builds.finish(claim, "cancelled"))
            elif isinstance(error, NoRoomError):
                delay_s = self._config.retry_s
                await job.said(lambda: self._builds.release(claim, why, delay_s=delay_s, counts=True))
            else:
                await job.said(lambda: self._builds.finish(claim, "failed", why))

    async def _last_words(self, job: Job) -> None:
        """The end of the log, where Redis takes it."""
        with suppress(RegistryUnavailableError):
            await job.beat()


def _told(error: Exception) -> BuildError:
    remedy = error.remedy if isinstance(error, BuilderError) else "see the builder's log"
    shown = str(error) if isinstance(error, _EXPECTED) else repr(error)
    return BuildError(shown, remedy, error.log_end if isinstance(error, StepError) else "")

"""Records: what this worker has seen of rollouts under way, and its reports of that to the controller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct, field

from gateway.entry import Entry
from gateway.shadow.canary import Canary
from gateway.shadow.heard import Comparison
from model_registry.errors import RegistryError
from model_registry.rolling import Rolling
from model_registry.rollout_evidence.evidence import Evidence
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.snapshot import Snapshot

_log = logging.getLogger(__name__)
REPORT_S = 1.0


class _Run(Struct):
    """One run of a rollout."""

    evidence: Evidence
    canary: Canary = field(default_factory=Canary)


class Records:
    """One per gateway process; `run` is its supervised task."""

    def __init__(self, store: EvidenceStore, snapshot: Callable[[], Snapshot], worker: str) -> None:
        """`worker`: unlike every other worker's name that ever was."""
        self._store = store
        self._snapshot = snapshot
        self._worker = worker
        self._runs: dict[str, _Run] = {}

    def of(self, rolling: Rolling) -> Evidence:
        """What was counted so far in the rollout's present run."""
        return self._run(rolling).evidence

    def _run(self, rolling: Rolling) -> _Run:
        name, epoch = rolling.status.name, rolling.status.epoch
        found = self._runs.get(name)
        if found is not None and found.evidence.epoch > epoch:
            return _Run(
                Evidence(epoch)
            )  # of a request that an earlier run began: nobody asks for it any more
        if found is None or found.evidence.epoch != epoch:
            found = self._runs[name] = _Run(Evidence(epoch))
        return found

    def served(self, entry: Entry, rolling: Rolling) -> None:
        """A client's request is over."""
        run = self._run(rolling)
        run.canary.saw(entry, rolling, run.evidence)

    def skipped(self, rolling: Rolling, why: str) -> None:
        """A request was not copied."""
        skipped = self.of(rolling).skipped
        skipped[why] = skipped.get(why, 0) + 1

    def copied(self, rolling: Rolling, to_self: bool, found: Comparison | None) -> None:
        """A copy was answered, or failed (None)."""
        evidence = self.of(rolling)
        copied = evidence.stable if to_self else evidence.candidate
        copied.errors.add(found is None)
        if found is None:
            return
        if found.differs is not None:
            copied.answers.add(found.differs)
            copied.agreement += found.agreement
        if found.other_reason is not None:
            copied.finish.add(found.other_reason)
        for ratios, ratio in (
            (copied.length, found.length),
            (copied.pace, found.pace),
            (copied.ttft, found.ttft),
        ):
            if ratio is not None:
                ratios.add(ratio)

    async def run(self) -> None:
        """Report on every rollout under way, once a second, whether or not anything was seen."""
        while True:
            under_way = list(self._snapshot().rolling.values())
            for name in self._runs.keys() - {one.status.name for one in under_way}:
                del self._runs[name]
            for rolling in under_way:
                try:
                    await self._store.report(rolling.status.name, self._worker, self.of(rolling))
                except RegistryError as error:
                    _log.debug("evidence waits for Redis", extra={"reason": str(error)})
            await asyncio.sleep(REPORT_S)

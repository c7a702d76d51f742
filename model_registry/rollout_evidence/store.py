"""EvidenceStore: gateway workers report what they have counted, the controller reads the sum."""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import NamedTuple, Self

import msgspec

from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer
from model_registry.rollout_evidence.evidence import Evidence, together
from model_registry.rollout_evidence.keys import Keys

_log = logging.getLogger(__name__)
_OUTLIVES_S = 7 * 86_400.0
_decode = msgspec.json.Decoder(Evidence, strict=False).decode


class Gathered(NamedTuple):
    """What all workers have counted, and how long ago one last told."""

    evidence: Evidence
    age_s: float | None
    """None: nobody has told anything of this run."""
    workers: int = 0
    """That have told."""


class EvidenceStore:
    """Raises RegistryUnavailableError or RegistryReadOnlyError when Redis does not serve."""

    def __init__(self, redis: RedisClient, name: str, answer_within_s: float) -> None:
        self._keys = Keys(name)
        self._answer_within_s = answer_within_s
        folder = files("model_registry.rollout_evidence") / "scripts"
        self._report, self._read = (
            redis.register_script((folder / f"{script}.lua").read_text("utf-8"))
            for script in ("report", "read")
        )

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig) -> Self:
        return cls(redis, config.name, config.command_timeout_s)

    async def report(self, rollout: str, worker: str, evidence: Evidence) -> bool:
        """Take the place of what `worker` has told before; False: a later run has begun."""
        document = msgspec.json.encode(evidence).decode()
        args: list[str | int] = [worker, evidence.epoch, document, round(_OUTLIVES_S * 1000)]
        async with answer(self._answer_within_s):
            return bool(await self._report(keys=[self._keys.evidence(rollout)], args=args))

    async def gather(self, rollout: str, epoch: int) -> Gathered:
        """The sum of all reports of one run; those that cannot be understood are passed over."""
        async with answer(self._answer_within_s):
            now_ms, values = await self._read(keys=[self._keys.evidence(rollout)], args=[])
        told: list[tuple[int, Evidence]] = []
        for value in values:
            at_ms, _, document = str(value).split(" ", 2)
            try:
                evidence = _decode(document)
            except msgspec.DecodeError as error:  # of a worker of another release
                _log.warning("report passed over", extra={"rollout": rollout, "reason": str(error)})
                continue
            if evidence.epoch == epoch:
                told.append((int(at_ms), evidence))
        if not told:
            return Gathered(Evidence(epoch), None)
        age_s = max(0, int(now_ms) - max(at_ms for at_ms, _ in told)) / 1000
        return Gathered(together(epoch, (evidence for _, evidence in told)), age_s, len(told))

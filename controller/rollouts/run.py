"""Rollouts: brings every rollout's status in line with what is decided, in the leading controller's loop.

All that a decision rests on is in Redis: the rollout, its status and the gateways' evidence. A controller
that takes over goes on where the last one was, and what that one still writes is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from controller.rollouts.decide import Decision, decide
from controller.rollouts.facts import facts_of, waits_for
from model_registry.demand.demand import LAPSES_S
from model_registry.entities import Deployment
from model_registry.errors import RegistryBusyError, RegistryUnavailableError
from model_registry.kinds import Ref
from model_registry.leadership import Leadership
from model_registry.rollout_evidence.evidence import Evidence
from model_registry.rollout_evidence.store import EvidenceStore, Gathered
from model_registry.rollouts import ACTIVE, FINAL, Rollout, RolloutStatus
from model_registry.snapshot import Snapshot, Stored
from model_registry.store import RegistryStore

_log = logging.getLogger(__name__)

FIGURES_S = 2.0
"""How often figures are written while nothing else changes: each time is a version of the registry."""


class Rollouts:
    """One per controller."""

    def __init__(
        self, store: RegistryStore, evidence: EvidenceStore, stale_after_s: float = LAPSES_S
    ) -> None:
        """`stale_after_s`: evidence that is older says nothing of now."""
        self._store = store
        self._evidence = evidence
        self._stale_after_s = stale_after_s
        self._written: dict[str, float] = {}

    async def act(self, snapshot: Snapshot, leadership: Leadership | None) -> None:
        """One look at all. Raises RegistryUnavailableError and LeadershipLostError."""
        if not _any_due(snapshot):
            return
        gathered: dict[str, Gathered] = {}
        for status in snapshot.rollout_statuses.values():
            if status.phase in ACTIVE and status.name in snapshot.rollouts:
                gathered[status.name] = await self._evidence.gather(status.name, status.epoch)
        changed: list[tuple[RolloutStatus | None, RolloutStatus]] = []

        def change(fresh: Snapshot, now: float) -> tuple[list[Stored], list[Ref]]:
            changed.clear()
            return self._changes(fresh, gathered, now, changed)

        try:
            await self._store.rewrite(change, leadership=leadership)
        except RegistryUnavailableError:
            raise
        except RegistryBusyError as error:
            _log.info("rollouts changed meanwhile", extra={"error": str(error)})
            return
        for before, status in changed:
            if before is None or (before.phase, before.step) != (status.phase, status.step):
                was = None if before is None else before.phase
                what = {"rollout": status.name, "was": was, "phase": status.phase, "share": status.share}
                _log.info("rollout moved", extra={**what, "reason": status.reason})

    def _changes(
        self,
        snapshot: Snapshot,
        gathered: Mapping[str, Gathered],
        now: float,
        changed: list[tuple[RolloutStatus | None, RolloutStatus]],
    ) -> tuple[list[Stored], list[Ref]]:
        puts: list[Stored] = []
        begun: dict[str, str] = {}
        for rollout in snapshot.rollouts.values():
            before = snapshot.rollout_statuses.get(rollout.name)
            present = before or _first(rollout)
            told = gathered.get(rollout.name)
            if told is None or told.evidence.epoch != present.epoch:
                told = Gathered(Evidence(present.epoch), None)
            facts = facts_of(rollout, snapshot, begun=present.phase in ACTIVE)
            facts = replace(facts, stale_after_s=self._stale_after_s)
            other = begun.get(rollout.model)
            if other is not None and present.phase == "pending" and facts.refusal is None:
                facts = replace(facts, refusal=waits_for(other))
            decision = decide(rollout, present, told, facts, now)
            if present.phase == "pending" and decision.phase in {*ACTIVE, "promoted"}:
                begun[rollout.model] = rollout.name
            status = _status(rollout, present, decision, told, now)
            if before is not None and not self._worth_writing(before, status, now):
                continue
            self._written[rollout.name] = now
            changed.append((before, status))
            puts += [status, *_weights(present, status, snapshot)]
        gone = snapshot.rollout_statuses.keys() - snapshot.rollouts.keys()
        return puts, [("RolloutStatus", name) for name in sorted(gone)]

    def _worth_writing(self, before: RolloutStatus, status: RolloutStatus, now: float) -> bool:
        if (before.phase, before.step, before.unready_since) != (
            status.phase,
            status.step,
            status.unready_since,
        ):
            return True
        return before != status and now - self._written.get(status.name, 0.0) >= FIGURES_S


def _any_due(snapshot: Snapshot) -> bool:
    statuses = snapshot.rollout_statuses
    if statuses.keys() - snapshot.rollouts.keys():
        return True
    return any(
        (status := statuses.get(rollout.name)) is None
        or status.phase not in FINAL
        or status.run != rollout.run
        for rollout in snapshot.rollouts.values()
    )


def _first(rollout: Rollout) -> RolloutStatus:
    return RolloutStatus(
        name=rollout.name,
        model=rollout.model,
        stable=rollout.stable,
        candidate=rollout.candidate,
        run=rollout.run,
    )


def _status(
    rollout: Rollout, present: RolloutStatus, decision: Decision, gathered: Gathered, now: float
) -> RolloutStatus:
    """The status that a decision makes of the present one."""
    if present.phase in FINAL:
        return present if decision.phase in FINAL else _first(rollout)
    moved = (decision.phase, decision.step) != (present.phase, present.step)
    begins = present.phase == "pending" and decision.phase in ACTIVE
    evidence, shadow, active = gathered.evidence, rollout.shadow, decision.phase in ACTIVE
    answers = evidence.candidate.answers.of
    sides = rollout if present.phase == "pending" else present  # it ends with those that it began with
    return RolloutStatus(
        name=rollout.name,
        model=sides.model,
        stable=sides.stable,
        candidate=sides.candidate,
        run=present.run,
        phase=decision.phase,
        step=decision.step,
        share=decision.share,
        copies=shadow.share if shadow is not None and active else 0.0,
        self_share=shadow.self_share if shadow is not None else 0.0,
        concurrency=shadow.concurrency if shadow is not None else 0,
        epoch=round(now * 1000) if begins else present.epoch,
        started_at=now if begins else present.started_at,
        since=now if moved else present.since,
        looked_at=now if active else present.looked_at,
        unready_since=decision.unready_since,
        reason=decision.reason,
        figures=decision.figures,
        agreement=evidence.candidate.agreement / answers if answers else None,
        skipped=dict(evidence.skipped),
        samples=decision.samples,
        needed=decision.needed,
        exposed=evidence.exposed / evidence.requests if evidence.requests else 0.0,
        eta_s=decision.eta_s,
        evidence_age_s=gathered.age_s,
    )


def _weights(before: RolloutStatus, status: RolloutStatus, snapshot: Snapshot) -> list[Stored]:
    """Deployments with the weights that a move leaves them, and their endpoints at once.

    Endpoints would follow with the next look at their servers; until then requests would go by the old ones.
    """
    if before.phase == status.phase or status.phase == "pending":
        return []
    if before.phase == "pending" and status.phase == "aborted":
        return []  # it has moved nothing, and the candidate may be what serves
    deployments = {one.name: one for one in chain(*snapshot.deployments.values())}
    stable, candidate = deployments.get(status.stable), deployments.get(status.candidate)
    if stable is None or candidate is None:
        return []
    serving = stable.weight or 1.0
    if status.phase == "promoted":
        wanted = {candidate.name: serving, stable.name: 0.0}
    else:
        wanted = {candidate.name: 0.0, stable.name: serving}
    puts: list[Stored] = [_weighing(deployments[name], weight) for name, weight in wanted.items()]
    for endpoint in snapshot.endpoints.get(status.model, ()):
        weight = wanted.get(endpoint.deployment)
        if weight is not None and endpoint.weight != weight:
            puts.append(endpoint.model_copy(update={"weight": weight}))
    return puts


def _weighing(deployment: Deployment, weight: float) -> Deployment:
    return deployment.model_copy(update={"weight": weight})

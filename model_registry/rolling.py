"""Rolling: a rollout under way as gateways go by it, made once for each snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from model_registry.entities import Endpoint
from model_registry.rollouts import ACTIVE, RolloutStatus


@dataclass(frozen=True, slots=True)
class Rolling:
    """Which endpoints belong to which side."""

    status: RolloutStatus
    profile: str
    """Of the candidate: requests of other profiles are not split."""
    candidate: tuple[Endpoint, ...]
    """As if they had weight: the rollout's share counts in its place."""
    others: tuple[Endpoint, ...]
    """All but the candidate's."""

    def stable(self) -> list[Endpoint]:
        """Those of the stable deployment."""
        return [endpoint for endpoint in self.others if endpoint.deployment == self.status.stable]

    def side(self, deployment: str) -> str | None:
        """`candidate` or `stable`; None for a deployment that has no part in it."""
        if deployment == self.status.candidate:
            return "candidate"
        return "stable" if deployment == self.status.stable else None


def rolling_of(
    statuses: Iterable[RolloutStatus], endpoints: Mapping[str, Sequence[Endpoint]]
) -> dict[str, Rolling]:
    """By model name. A model has one rollout at a time; of two, the one whose name comes first."""
    found: dict[str, Rolling] = {}
    for status in statuses:
        if status.phase not in ACTIVE or status.model in found:
            continue
        of_model = endpoints.get(status.model, ())
        candidate = tuple(
            endpoint.model_copy(update={"weight": 1.0})
            for endpoint in of_model
            if endpoint.deployment == status.candidate
        )
        others = tuple(endpoint for endpoint in of_model if endpoint.deployment != status.candidate)
        profile = candidate[0].profile if candidate else ""
        found[status.model] = Rolling(status, profile, candidate, others)
    return found

"""Facts: what the registry says of a rollout's two deployments. Pure."""

from __future__ import annotations

from controller.rollouts.decide import Facts
from model_registry.entities import Deployment
from model_registry.rollouts import ACTIVE, Rollout
from model_registry.snapshot import Snapshot


def facts_of(rollout: Rollout, snapshot: Snapshot, *, begun: bool) -> Facts:
    """`begun`: its candidate is being tried already."""
    deployments = {one.name: one for group in snapshot.deployments.values() for one in group}
    stable, candidate = deployments.get(rollout.stable), deployments.get(rollout.candidate)
    if stable is None or candidate is None:
        missing = rollout.stable if stable is None else rollout.candidate
        return Facts(f"refused: the deployment {missing!r} is gone")
    refusal = _mismatch(rollout, stable, candidate, begun) or _engine(snapshot, stable, candidate)
    if not begun:
        refusal = refusal or _tokenizer(rollout, snapshot) or _another(rollout, snapshot)
    ready = {
        endpoint.deployment
        for endpoint in snapshot.endpoints.get(rollout.model, ())
        if endpoint.state == "ready"
    }
    return Facts(refusal, rollout.candidate in ready, rollout.stable in ready)


def _mismatch(rollout: Rollout, stable: Deployment, candidate: Deployment, begun: bool) -> str | None:
    for one in (stable, candidate):
        if one.model != rollout.model:
            return f"refused: the deployment {one.name!r} serves {one.model!r}, not {rollout.model!r}"
    if stable.profile != candidate.profile:
        return (
            f"refused: {stable.name!r} has the profile {stable.profile!r} and {candidate.name!r} "
            f"{candidate.profile!r}; a rollout stays within one"
        )
    if stable.weight == 0 and not begun:
        return f"refused: {stable.name!r} has weight 0 and serves nothing that could be taken over"
    return None


def _engine(snapshot: Snapshot, stable: Deployment, candidate: Deployment) -> str | None:
    """A candidate that was built here must have passed preflight, and run on what the fleet runs on."""
    if candidate.engine is None:
        return None
    engine = snapshot.engines.get(candidate.engine)
    if engine is None:
        return f"refused: the engine {candidate.engine!r} is not in the registry"
    serving = None if stable.engine is None else snapshot.engines.get(stable.engine)
    if engine.runtime == "emulated" and (serving is None or serving.runtime != "emulated"):
        return (
            f"refused: the engine {engine.name!r} is emulated and must never take over from one that is not "
            f"known to be; build it with --runtime tensorrt-llm"
        )
    if not engine.routable:
        return f"refused: the engine {engine.name!r} has not passed preflight"
    return None


def _tokenizer(rollout: Rollout, snapshot: Snapshot) -> str | None:
    model = snapshot.models.get(rollout.model)
    lanes = {
        endpoint.lane
        for endpoint in snapshot.endpoints.get(rollout.model, ())
        if endpoint.deployment == rollout.candidate
    }
    if model is None or model.tokenizer is not None or lanes <= {"openai-http"}:
        return None
    return (
        f"refused: the candidate runs on Triton ({', '.join(sorted(lanes))}), which needs the model's "
        f"tokenizer; set `tokenizer` of the model {model.name!r}"
    )


def _another(rollout: Rollout, snapshot: Snapshot) -> str | None:
    for status in snapshot.rollout_statuses.values():
        if status.model == rollout.model and status.name != rollout.name and status.phase in ACTIVE:
            return waits_for(status.name)
    return None


def waits_for(other: str) -> str:
    """Why a rollout does not begin while another one of its model is under way."""
    return f"waits for the rollout {other!r} of the same model to end"

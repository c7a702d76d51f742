"""Status: what a deployment's ScalingStatus says, and when that is worth a version of the registry. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from controller.replicas.acts import Backoff
from controller.replicas.config import ReplicasConfig
from controller.residency.pool import Memory
from controller.scaling.wanted import Wanted
from model_registry.entities import Deployment
from model_registry.replicas import Replica, ScalingStatus, Signal

NO_MEMORIES: Mapping[str, Memory] = MappingProxyType({})
FIGURES_S = 5.0
"""How often figures are written while no number changes: each time is a version of the registry."""
NEW_WEIGHT = 0.3
"""Of the latest start in what is learned of cold starts."""
OVERDUE = 0.25
"""Of the cold start: how much longer is reckoned with where a start is late."""


class News(NamedTuple):
    """What has become of a deployment's starts since the last look."""

    cold_starts_s: Sequence[float] = ()
    """Of those that came to be ready."""
    failed: int = 0


NO_NEWS = News()


def backoff_after(before: ScalingStatus | None, news: News, now_s: float, config: ReplicasConfig) -> Backoff:
    """How failed starts hold up the next one, after what happened now."""
    present = Backoff() if before is None else Backoff(before.failures, before.retry_at)
    if news.cold_starts_s:
        return Backoff()
    if news.failed == 0:
        return present
    wait_s = min(config.retry_s * 2 ** min(present.failures, 16), config.retry_limit_s)
    return Backoff(present.failures + 1, now_s + wait_s)


def status_of(
    deployment: Deployment,
    wanted: Wanted | None,
    replicas: Sequence[Replica],
    news: News,
    before: ScalingStatus | None,
    backoff: Backoff,
    held_up: str | None,
    now_s: float,
    memories: Mapping[str, Memory] = NO_MEMORIES,
) -> ScalingStatus:
    """`replicas`: the deployment's, as they are recorded from now on; `memories`: by server."""
    assert deployment.scaling is not None
    pool = deployment.scaling.pool
    present = before or ScalingStatus(name=deployment.name, model=deployment.model, pool=pool)
    number = present.wanted if wanted is None else wanted.replicas
    changed = before is None or number != present.wanted
    cold_start_s = _learned(present.cold_start_s, news)
    return ScalingStatus(
        name=deployment.name,
        model=deployment.model,
        pool=pool,
        wanted=number,
        ready=sum(one.state == "ready" for one in replicas),
        starting=sum(one.state == "starting" for one in replicas),
        draining=sum(one.state == "draining" for one in replicas),
        reason=held_up or (wanted.reason if wanted is not None else present.reason),
        since=now_s if changed else present.since,
        cold_start_s=cold_start_s,
        expected_at=_expected_at(replicas, cold_start_s or deployment.scaling.cold_start_s, now_s),
        memory_mib=max((one.memory_mib or 0 for one in replicas), default=0) or present.memory_mib,
        failures=backoff.failures,
        retry_at=backoff.retry_at,
        signals=present.signals if wanted is None else (*wanted.signals, *memory_signals(replicas, memories)),
    )


def memory_signals(replicas: Sequence[Replica], memories: Mapping[str, Memory]) -> Iterator[Signal]:
    """GPU memory of the servers that these are on; of those that do not tell, nothing."""
    for http in sorted({one.place for one in replicas if one.place is not None}):
        gpus = memories[http].gpus if http in memories else None
        if gpus is None:
            continue
        for name, mib in (("gpu_memory_used", gpus.used_mib), ("gpu_memory_total", gpus.total_mib)):
            yield Signal(
                name=name,
                value=round(mib),
                unit="MiB",
                source="servers",
                age_s=round(gpus.age_s, 3),
                server=http,
            )


def is_worth_writing(before: ScalingStatus | None, status: ScalingStatus, figures_age_s: float) -> bool:
    """Numbers at once; reasons, signals and what is expected a little later from time to time."""
    if before is None:
        return True
    if before == status:
        return False
    if figures_age_s >= FIGURES_S:
        return True
    later = {name: getattr(before, name) for name in ("reason", "signals")}
    nearly = {"expected_at": before.expected_at} if _close(before.expected_at, status.expected_at) else {}
    return before != status.model_copy(update={**later, **nearly})


def worth_writing(
    statuses: Sequence[tuple[ScalingStatus | None, ScalingStatus, float]], *, anyway: bool
) -> list[ScalingStatus]:
    """Those to be written now, of statuses with what is written and for how long that has been so, in s.

    Where anything is (`anyway`: something else), figures that would be due soon go with it: else deployments
    would take turns, each with a version of its own, and each version is a look at every server.
    """
    due = [is_worth_writing(*one) for one in statuses]
    soon = FIGURES_S / 2 if anyway or any(due) else FIGURES_S
    return [
        status
        for is_due, (before, status, age_s) in zip(due, statuses, strict=True)
        if is_due or (before != status and age_s >= soon)
    ]


def _close(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else abs(one - other) < 0.5


def _expected_at(replicas: Sequence[Replica], cold_start_s: float, now_s: float) -> float | None:
    due_at = min((one.created + cold_start_s for one in replicas if one.state == "starting"), default=None)
    if due_at is None or due_at >= now_s:
        return due_at
    return now_s + OVERDUE * cold_start_s


def _learned(known_s: float | None, news: News) -> float | None:
    for took_s in news.cold_starts_s:
        known_s = took_s if known_s is None else round((1 - NEW_WEIGHT) * known_s + NEW_WEIGHT * took_s, 3)
    return known_s

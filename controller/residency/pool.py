"""A pool's residency: what its servers hold and its deployments need, and what is to be done about it. Pure.

For pools of Tritons all of which have `memory_mib`. Deployments there have replicas where they are asked
for, and as long as nothing that is worth more needs their room; `idle_s` and cool-downs say nothing there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf, isfinite
from typing import Literal, NamedTuple

from controller.replicas.acts import UNSEEN, Act, Drain, Seen, Start
from controller.replicas.placing import target_of
from controller.residency.decide import place
from controller.residency.rooms import Copy, Evict, Load, ModelNeed, ServerRoom
from controller.residency.value import Outlook
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand, GroupDemand
from model_registry.entities import Deployment
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica, ReplicaState, ScalingStatus


class GpuUse(NamedTuple):
    """Of one server's GPUs together, by its metrics, whoever takes it."""

    used_mib: float
    total_mib: float
    age_s: float


class Memory(NamedTuple):
    """What is known of one server's memory beside what it was meant for, in MiB."""

    used_mib: float | None = None
    """Measured; None: not known, or other servers' models are among it."""
    kept_mib: float = 0.0
    """Of models that have left it, since it was started."""
    gpus: GpuUse | None = None
    """None: it does not tell."""


class Known(NamedTuple):
    """What the leader has learned."""

    outlooks: Mapping[str, Outlook] = {}
    """By deployment."""
    memories: Mapping[str, Memory] = {}
    """By server."""
    statuses: Mapping[str, ScalingStatus] = {}
    """By deployment."""
    restarts: Mapping[str, str] = {}
    """Servers that leak and are to be restarted, with their pool."""
    elsewhere: Collection[str] = ()
    """Deployments that have come to another pool and serve from the one that they left: nobody waits."""


NOTHING_EXPECTED = Outlook()
NOT_MEASURED = Memory()
NOTHING_KNOWN = Known()


def is_packed(pool: Pool) -> bool:
    """Whether residency decides what its servers hold: all have a budget."""
    return isinstance(pool.actuator, TritonActuator) and pool.actuator.has_budgets


def leaking(pool: Pool, memories: Mapping[str, Memory]) -> dict[str, float]:
    """Servers that keep more than `leak_mib` of models that have left, and how much."""
    if not isinstance(pool.actuator, TritonActuator):
        return {}
    kept = {one.http: memories.get(one.http, NOT_MEASURED).kept_mib for one in pool.actuator.servers}
    return {http: mib for http, mib in kept.items() if mib > pool.actuator.leak_mib}


def resident(
    now_s: float,
    pool: Pool,
    deployments: Sequence[Deployment],
    replicas: Sequence[Replica],
    wanted: Mapping[str, Wanted],
    demand: Demand,
    *,
    seen: Mapping[str, Seen],
    known: Known,
    waits: Collection[str] = (),
) -> tuple[Act, ...]:
    """`Start` and `Drain` for one pool. `waits`: deployments whose last start failed and is not tried yet."""
    assert isinstance(pool.actuator, TritonActuator)
    kept = leaking(pool, known.memories)
    ill = {http: mib for http, mib in kept.items() if known.restarts.get(http) == pool.name}
    drained = [
        Drain(one, f"its server keeps {ill[one.place]:.0f} MiB of what has left it, and is restarted")
        for one in replicas
        if one.place in ill and one.state == "ready" and not demand.silent
    ]
    by_name = {one.name: one for one in deployments}
    records = {one.name: one for one in replicas}
    budgets = {one.http: float(one.memory_mib or 0) for one in pool.actuator.servers}
    copies = {
        one.name: _copy(one, by_name.get(one.deployment), budgets.get(one.place or ""), demand, seen, known)
        for one in replicas
    }
    servers = [
        _room(one, [copies[r.name] for r in replicas if r.place == one.http], known, one.http not in ill)
        for one in pool.actuator.servers
    ]
    numbers = {one.name: _number(one, wanted.get(one.name)) for one in deployments}
    served = {
        _group(one) for one in deployments if numbers[one.name] and one.weight and one.name not in waits
    }
    needs = [
        _need(
            one,
            numbers[one.name],
            one.name in waits,
            bool(one.weight) and (numbers[one.name] > 0 or _group(one) not in served),
            demand,
            known,
        )
        for one in deployments
    ]
    acts: list[Act] = list(drained)
    for act in place(now_s, servers, needs, lambda name: known.outlooks.get(name, NOTHING_EXPECTED)):
        match act:
            case Load(model, server, reason):
                acts.append(Start(by_name[model], server, reason))
            case Evict(replica, _, server, reason) if server not in ill:
                acts.append(Drain(records[replica], reason))
    return tuple(acts)


def size_mib(deployment: Deployment, status: ScalingStatus | None) -> float:
    """What a replica takes: measured, else declared. A deployment that says nothing fits nowhere."""
    if status is not None and status.memory_mib:
        return float(status.memory_mib)
    scaling = deployment.scaling
    return float("inf") if scaling is None or scaling.memory_mib is None else float(scaling.memory_mib)


def sum_mib(
    replicas: Iterable[Replica],
    deployments: Mapping[str, Deployment],
    statuses: Mapping[str, ScalingStatus],
) -> float:
    """What replicas take together: each as measured, else as declared; infinite where one says nothing."""
    total = 0.0
    for one in replicas:
        deployment = deployments.get(one.deployment)
        if one.memory_mib:
            total += one.memory_mib
        elif deployment is None:
            return inf
        else:
            total += size_mib(deployment, statuses.get(one.deployment))
    return total


def _room(server: PoolServer, copies: Sequence[Copy], known: Known, is_open: bool) -> ServerRoom:
    assert server.memory_mib is not None
    used = known.memories.get(server.http, NOT_MEASURED).used_mib
    return ServerRoom(server.http, server.memory_mib, tuple(copies), server.gpu, used, is_open)


STATES: Mapping[ReplicaState, Literal["loading", "ready"]] = {"starting": "loading", "ready": "ready"}


def _copy(
    replica: Replica,
    deployment: Deployment | None,
    budget_mib: float | None,
    demand: Demand,
    seen: Mapping[str, Seen],
    known: Known,
) -> Copy:
    """One of unknown size (its deployment was deleted, or says nothing) takes all of its server's budget.

    What a gateway that is silent has in flight there is not known: it may be busy.
    """
    endpoint = seen.get(replica.name, UNSEEN).endpoint
    told = None if endpoint is None else demand.endpoints.get(endpoint)
    mib = float(replica.memory_mib or 0)
    if not mib and deployment is not None:
        mib = size_mib(deployment, known.statuses.get(deployment.name))
    if not isfinite(mib or inf):
        mib = budget_mib or 0.0
    return Copy(
        replica.name,
        replica.deployment,
        mib,
        STATES.get(replica.state, "leaving"),
        max(0 if told is None else told.requests, 1 if demand.silent else 0),
        replica.since,
        replica.target or replica.model,
    )


def _group(deployment: Deployment) -> str:
    return f"{deployment.model}:{deployment.profile}"


def _number(deployment: Deployment, wanted: Wanted | None) -> int:
    scaling = deployment.scaling
    return 0 if scaling is None or wanted is None else min(wanted.replicas, scaling.max_replicas)


def _need(
    deployment: Deployment, number: int, failed: bool, waited_for: bool, demand: Demand, known: Known
) -> ModelNeed:
    """`waited_for`: it is its group's waiting that it is brought in for; of two deployments, one is enough.

    One of weight 0 has as many as are wanted of it: a rollout may be under way.
    """
    scaling, status = deployment.scaling, known.statuses.get(deployment.name)
    assert scaling is not None
    asked = demand.groups.get(_group(deployment), GroupDemand())
    least = max(scaling.min_replicas, 1 if deployment.name in known.elsewhere else 0)
    learned_s = None if status is None else status.cold_start_s
    return ModelNeed(
        deployment.name,
        size_mib(deployment, status),
        learned_s or scaling.cold_start_s,
        wanted=number,
        least=least if deployment.weight else max(least, number),
        pinned=scaling.pinned,
        waiting=asked.waiting if waited_for else 0,
        oldest_s=asked.oldest_s,
        target=target_of(deployment),
        failed=failed,
    )

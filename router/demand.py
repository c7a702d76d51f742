"""Demand: what one gateway process counts of its requests, by model and profile, for the controller.

A request pays a look-up and a few additions; gauges are read when they are reported. Rows of batch jobs use
spare capacity only and count nowhere, but that a model which is not up is wanted for them. Owned by one event
loop; times are of its clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from inference.request import Usage
from model_registry.demand.demand import EndpointDemand, GroupDemand, WorkerDemand
from model_registry.snapshot import Snapshot
from router.ledger import EndpointLoad, Reported
from router.profiles import stand_ins
from router.targets import strictest
from router.timing import Timing


class Waiting(Struct, eq=False):
    """A request that waits for an endpoint."""

    since_s: float
    tokens: int
    """Uncached, of its prompt."""
    held: bool = False
    """No endpoint is up that could serve it."""


class GroupCounts(Struct, eq=False):
    """Of one model under one profile; see `GroupDemand`."""

    arrivals: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    ended: int = 0
    refused: int = 0
    ttft_s: float = 0.0
    first_tokens: int = 0
    ttft_missed: int = 0
    itl_s: float = 0.0
    paced: int = 0
    itl_missed: int = 0
    engine_queue_s: float = 0.0
    engine_prefill_s: float = 0.0
    engine_timed: int = 0
    reused_tokens: int = 0
    reusable_tokens: int = 0
    target_s: float | None = None
    """For first tokens, of the deployments' scaling; None: the profile's."""
    itl_target_s: float | None = None
    """Between tokens, as well."""
    waiting_tokens: int = 0
    held: int = 0
    waiting: dict[Waiting, None] = field(default_factory=dict)
    """In the order in which they began to wait."""

    def finished(self, usage: Usage | None) -> None:
        """A request is over, with what it used where that is known."""
        self.ended += 1
        if usage is not None and usage.completion_tokens is not None:
            self.output_tokens += usage.completion_tokens

    def first_token(self, ttft_s: float, target_s: float) -> bool:
        """A first token came so long after its request; whether that is late. `target_s`: of the profile."""
        self.first_tokens += 1
        self.ttft_s += ttft_s
        late = ttft_s > (self.target_s or target_s)
        self.ttft_missed += late
        return late

    def answered(self, timing: Timing, itl_target_s: float) -> None:
        """An answer is whole; `itl_target_s`: of the profile."""
        if timing.itl_s is not None:
            self.paced += 1
            self.itl_s += timing.itl_s
            if timing.itl_s > (self.itl_target_s or itl_target_s):
                self.itl_missed += 1
        if timing.engine is not None:
            self.engine_timed += 1
            self.engine_queue_s += timing.engine.queue_s
            self.engine_prefill_s += timing.engine.prefill_s

    def reused(self, usage: Usage) -> None:
        """What an engine told of a prompt that it had in its cache."""
        if usage.cached_tokens is not None and usage.prompt_tokens is not None:
            self.reused_tokens += usage.cached_tokens
            self.reusable_tokens += usage.prompt_tokens

    def enter(self, waiting: Waiting) -> None:
        """A request begins to wait; `leave` follows exactly once."""
        self.waiting[waiting] = None
        self.waiting_tokens += waiting.tokens

    def hold(self, waiting: Waiting, *, held: bool) -> None:
        """Whether it waits for want of any endpoint that is up."""
        self.held += held - waiting.held
        waiting.held = held

    def leave(self, waiting: Waiting) -> None:
        """It waits no more, however that ended."""
        self.hold(waiting, held=False)
        del self.waiting[waiting]
        self.waiting_tokens -= waiting.tokens

    def told(self, now_s: float) -> GroupDemand:
        """As it is reported."""
        oldest = next(iter(self.waiting), None)
        return GroupDemand(
            waiting=len(self.waiting),
            waiting_tokens=self.waiting_tokens,
            held=self.held,
            oldest_s=0.0 if oldest is None else round(now_s - oldest.since_s, 3),
            arrivals=self.arrivals,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            ended=self.ended,
            refused=self.refused,
            ttft_s=round(self.ttft_s, 6),
            first_tokens=self.first_tokens,
            ttft_missed=self.ttft_missed,
            itl_s=round(self.itl_s, 6),
            paced=self.paced,
            itl_missed=self.itl_missed,
            engine_queue_s=round(self.engine_queue_s, 6),
            engine_prefill_s=round(self.engine_prefill_s, 6),
            engine_timed=self.engine_timed,
            reused_tokens=self.reused_tokens,
            reusable_tokens=self.reusable_tokens,
        )


class Demanded:
    """Counts of all groups of one gateway process."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], GroupCounts] = {}
        self.for_rows: Collection[tuple[str, str]] = ()
        """Models that are not up and that batch jobs wait for, each with the profile of who may serve it."""

    def arrived(self, model: str, profile: str, prompt_tokens: int) -> GroupCounts:
        """A request is here; `GroupCounts.finished` follows exactly once."""
        group = self._groups.get((model, profile))
        if group is None:
            group = self._groups[model, profile] = GroupCounts()
        group.arrivals += 1
        group.prompt_tokens += prompt_tokens
        return group

    def retain(self, snapshot: Snapshot) -> None:
        """Take over the targets of deployments; forget models that are no more and have nothing waiting."""
        for key, group in list(self._groups.items()):
            model, profile = key
            if model not in snapshot.models and not group.waiting and group.arrivals == group.ended:
                del self._groups[key]
                continue
            own = [one for one in snapshot.deployments.get(model, ()) if one.profile == profile]
            ttft, itl = strictest(own, snapshot.knobs(profile))
            group.target_s = None if ttft.source == "profile" else ttft.seconds
            group.itl_target_s = None if itl.source == "profile" else itl.seconds

    def report(
        self, loads: Mapping[str, EndpointLoad], in_flight: Mapping[str, Reported], now_s: float
    ) -> WorkerDemand:
        """What this process has to tell; `loads` and `in_flight`: of endpoints, by name."""
        groups = {key: group.told(now_s) for key, group in self._groups.items()}
        for key in self.for_rows:
            told = groups.get(key, GroupDemand())
            groups[key] = replace(told, waiting=told.waiting + 1, held=told.held + 1)
        return WorkerDemand(
            groups={f"{model}:{profile}": told for (model, profile), told in groups.items()},
            endpoints={
                name: _endpoint(load, in_flight.get(name))
                for name, load in loads.items()
                if load.requests or load.answers or load.failures
            },
        )


def wanted_for_rows(snapshot: Snapshot, models: Collection[str], profile: str) -> set[tuple[str, str]]:
    """Of `models`, which rows of batch jobs wait for under `profile`, those to be brought up. Pure."""
    found = set()
    for model in models:
        if any(one.state == "ready" and one.weight > 0 for one in snapshot.endpoints.get(model, ())):
            continue
        scaled = [one.profile for one in snapshot.deployments.get(model, ()) if one.scaling and one.weight]
        if scaled:
            found.add((model, next(one for one in stand_ins(profile, scaled) if one in scaled)))
    return found


def _endpoint(load: EndpointLoad, flying: Reported | None) -> EndpointDemand:
    return EndpointDemand(
        requests=load.requests,
        prefill_tokens=0 if flying is None else flying.prefill_tokens,
        decode_tokens=0 if flying is None else flying.decode_tokens,
        failed=load.failures,
        ended=load.answers,
        first_tokens=load.first_tokens,
    )

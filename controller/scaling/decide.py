"""Decide: how many replicas a group of deployments needs, from what is known of it now. Pure.

Loads are in replicas: 1.0 is what keeps one replica busy, as far as its targets allow by its card. What has
to be kept from one decision to the next is a value, too: `Memory`.
"""

from __future__ import annotations

from math import ceil, exp, log
from typing import NamedTuple

from controller.scaling.fill import Fill, filled
from controller.scaling.lateness import worth
from controller.scaling.trend import BUCKET_S, Trend, anew, expected, follow, forecast, lately
from model_registry.demand.demand import LAPSES_S

PRICE = 6.0
"""How many times its own work it is worth that a request is in time; learned from how many are."""
PRICES = (2.0, 200.0)
LATE = 0.002
"""Part of requests that may be late, over hours."""
LEARNING = 0.1
"""By how much the logarithm of the price rises when all requests of a bucket are late."""
KEEPING = 3.0
"""A replica that is there is worth so many times the price: it costs a start to get it back."""
DWELL_S = 15.0
"""How long fewer have to be enough, before any leaves."""
HELD_S = 30.0
"""So long after requests were held nothing is learned from how late answers are: they waited for a start."""
CATCH_UP = 0.4
"""In what part of a cold start a backlog is to be worked off, once replicas are up."""
CATCH_UP_LEAST_S = 5.0
SURGE = 3
"""At most so many times what is up is asked for at once because of a backlog alone."""


class Seen(NamedTuple):
    """What is known of a group's load now."""

    age_s: float | None
    """Of the oldest report; None: nobody has told anything."""
    arrived: float | None = None
    """Work that has come since the last look, in replica-seconds; None: not known."""
    backlog: float = 0.0
    """Work that waits at gateways, in replica-seconds."""
    busy: float = 0.0
    """Replicas that requests in flight would fill."""
    requests: int = 0
    """Waiting or in flight."""
    held: int = 0
    """Requests that nothing can serve, since no replica is up."""
    answered: float = 0.0
    """Requests that got a first token since the last look."""
    late: float = 0.0
    """Those of them that got it later than the target."""
    paced: float = 0.0
    """Answers that have ended since the last look and whose time between tokens is known."""
    slow: float = 0.0
    """Those of them for which it was above the target."""
    refused: int = 0
    """Requests that nothing could serve since the last look: another model answered, or nobody did."""

    @property
    def lacks(self) -> str | None:
        """What asks for the first replica while none is up."""
        if self.held:
            return f"{self.held} requests are held and no replica is up"
        return f"{self.refused} requests were refused and no replica is up" if self.refused else None


class Fleet(NamedTuple):
    """What there is."""

    ready: int
    starting: int = 0

    @property
    def up(self) -> int:
        """Ready, or on their way."""
        return self.ready + self.starting


class Limits(NamedTuple):
    """What operators and the group's engines set."""

    least: int
    most: int
    idle_s: float
    cold_start_s: float
    wait_s: float
    """How long a request may wait and still meet its target."""
    request_s: float
    """Work of one request, in replica-seconds."""
    stale_after_s: float = LAPSES_S
    """Reports that are older say nothing of now."""


class Memory(NamedTuple):
    """What a decision leaves for the next one."""

    trend: Trend | None = None
    fill: Fill = Fill()
    log_price: float = log(PRICE)
    answered: float = 0.0
    late: float = 0.0
    paced: float = 0.0
    slow: float = 0.0
    """In the present bucket."""
    need: int = 0
    """Replicas that one more would not be worth it beside, once they are up."""
    keep: int = 0
    """Replicas that are worth keeping."""
    fewer_since_s: float | None = None
    """When it began that fewer were enough than are up."""
    waits_since_s: float | None = None
    """When the present backlog was first too long."""
    used_s: float | None = None
    """When there was a request last."""
    held_s: float | None = None
    """When one was held last."""


class Decision(NamedTuple):
    """How many, and why."""

    replicas: int
    reason: str
    load: float = 0.0
    """Now, in replicas."""
    expected: float = 0.0
    """When a replica would be up that is asked for now."""
    fill: float = 1.0
    """What one replica does beside what its card says."""
    price: float = PRICE


def decide(now_s: float, seen: Seen, fleet: Fleet, limits: Limits, memory: Memory) -> tuple[Decision, Memory]:
    """The number of replicas from now on.

    Never fewer than are up while reports are stale or missing; never none unless nobody has asked for
    `idle_s`.
    """
    if seen.age_s is None or seen.age_s > limits.stale_after_s or seen.arrived is None:
        return _blind(seen, fleet, limits), _interrupted(now_s, memory)
    memory = _learned(now_s, seen, fleet, limits, memory)
    trend = memory.trend
    assert trend is not None
    if not trend.known:
        return _starting(seen, fleet, limits), memory
    wanted, why, memory = _wanted(now_s, seen, fleet, limits, memory)
    replicas = min(max(wanted, limits.least), limits.most)
    load, ahead = expected(trend, 0.0), expected(trend, limits.cold_start_s)
    if replicas != wanted:
        why = f"{why}; the {'most' if replicas < wanted else 'least'} allowed is {replicas}"
    return Decision(replicas, why, load, ahead, memory.fill.part, exp(memory.log_price)), memory


def _learned(now_s: float, seen: Seen, fleet: Fleet, limits: Limits, memory: Memory) -> Memory:
    """With what this look tells; needs are worked out anew when a bucket is full."""
    assert seen.arrived is not None
    before = memory.trend or Trend(now_s, 2 * limits.request_s)
    trend = follow(before, now_s, seen.arrived, limits.cold_start_s)
    used_s = now_s if seen.requests or seen.arrived or memory.used_s is None else memory.used_s
    held_s = now_s if seen.held or not fleet.ready else memory.held_s
    answered, late = memory.answered + seen.answered, memory.late + seen.late
    paced, slow = memory.paced + seen.paced, memory.slow + seen.slow
    if held_s is not None and now_s - held_s < HELD_S:
        answered = late = paced = slow = 0.0
    fill = filled(memory.fill, now_s, seen.arrived, seen.backlog, fleet.ready, limits.wait_s)
    memory = memory._replace(
        trend=trend,
        used_s=used_s,
        held_s=held_s,
        answered=answered,
        late=late,
        paced=paced,
        slow=slow,
        fill=fill,
    )
    if trend.at_s == before.at_s or not trend.known:
        return memory
    log_price = memory.log_price
    missed = max([part / of for part, of in ((late, answered), (slow, paced)) if of], default=None)
    if missed is not None:  # a request is in time if it keeps both targets: at least so many do not
        log_price += LEARNING * (missed - LATE)
        log_price = min(max(log_price, log(PRICES[0])), log(PRICES[1]))
    need, keep = needs(trend, limits, fill.part, exp(log_price))
    calm = memory._replace(answered=0.0, late=0.0, paced=0.0, slow=0.0)
    return calm._replace(log_price=log_price, need=need, keep=keep)


def _interrupted(now_s: float, memory: Memory) -> Memory:
    """What was learned stays; what is counted from a moment on, or has to last, begins again.

    Nobody can tell whether anybody has asked meanwhile, so idle time begins again, too.
    """
    return Memory(
        trend=None if memory.trend is None else anew(memory.trend, now_s),
        fill=Fill(memory.fill.part),
        log_price=memory.log_price,
        held_s=memory.held_s,
    )


def needs(trend: Trend, limits: Limits, fill: float, price: float) -> tuple[int, int]:
    """Replicas that are worth being asked for now, and those worth keeping until others could be up."""
    then = forecast(trend, limits.cold_start_s)
    need = worth(then, trend.spread, limits.wait_s, price, fill)
    keep = need
    for points in (then, forecast(trend, 0.0)):
        keep = worth(points, trend.spread, limits.wait_s, KEEPING * price, fill, keep)
    return need, keep


def _wanted(
    now_s: float, seen: Seen, fleet: Fleet, limits: Limits, memory: Memory
) -> tuple[int, str, Memory]:
    """Before the limits on the number."""
    assert memory.trend is not None
    assert memory.used_s is not None
    calm = memory._replace(fewer_since_s=None, waits_since_s=None)
    load, ahead = expected(memory.trend, 0.0), expected(memory.trend, limits.cold_start_s)
    about = f"load {load:.2f} replicas, {ahead:.2f} in {limits.cold_start_s:.0f} s"
    if not seen.requests and now_s - memory.used_s >= limits.idle_s and limits.least == 0:
        return 0, f"nobody has asked for {limits.idle_s:g} s", calm
    if seen.lacks is not None and not fleet.up:
        return max(1, memory.need), seen.lacks, calm
    waits = seen.backlog > limits.wait_s * fleet.ready * memory.fill.part
    if waits:
        wait_began_s = now_s if memory.waits_since_s is None else memory.waits_since_s
        calm = calm._replace(waits_since_s=wait_began_s)
        rate = _catching_up(seen, fleet, limits, memory, now_s, now_s - wait_began_s)
        wanted = max(memory.need, min(SURGE * max(1, fleet.up), ceil(rate)))
        if wanted > fleet.up:
            return wanted, f"{about}; {seen.backlog:.0f} replica-seconds of work wait", calm
    if memory.need > fleet.up:
        return memory.need, about, calm
    lowest = max(memory.keep, ceil(seen.busy / memory.fill.part - 0.05), min(1, fleet.up))
    if lowest >= fleet.up or waits or not memory.trend.settled:
        return fleet.up, about, calm
    since_s = now_s if memory.fewer_since_s is None else memory.fewer_since_s
    if now_s - since_s < DWELL_S:
        return (
            fleet.up,
            f"{about}; fewer since {now_s - since_s:.0f} s",
            memory._replace(fewer_since_s=since_s),
        )
    return lowest, about, calm


def _catching_up(
    seen: Seen, fleet: Fleet, limits: Limits, memory: Memory, now_s: float, waited_s: float
) -> float:
    """Replicas that do the load and what will wait by the time when they are up.

    Those on their way are taken to have been asked for when the backlog began.
    """
    assert memory.trend is not None
    cold_start_s, part = limits.cold_start_s, memory.fill.part
    load = lately(memory.trend, now_s)
    done = (fleet.ready * cold_start_s + fleet.starting * min(cold_start_s, waited_s)) * part
    backlog = max(0.0, seen.backlog + load * cold_start_s - done)
    return (load + backlog / max(CATCH_UP_LEAST_S, CATCH_UP * cold_start_s)) / part


def _blind(seen: Seen, fleet: Fleet, limits: Limits) -> Decision:
    """Hold what there is; one comes for what is held."""
    if (
        seen.lacks is not None
        and not fleet.up
        and seen.age_s is not None
        and seen.age_s <= limits.stale_after_s
    ):
        return Decision(min(max(1, limits.least), limits.most), seen.lacks)
    why = "no gateway has reported" if seen.age_s is None else "reports have just begun"
    if seen.age_s is not None and seen.age_s > limits.stale_after_s:
        why = f"the last report is {seen.age_s:.0f} s old"
    return Decision(min(max(fleet.up, limits.least), limits.most), f"{why}: what there is stays")


def _starting(seen: Seen, fleet: Fleet, limits: Limits) -> Decision:
    """Before the first bucket is full, only what waits counts."""
    waiting = ceil((seen.backlog + seen.busy * BUCKET_S) / (BUCKET_S + limits.cold_start_s))
    if seen.lacks is not None and not fleet.up:
        return Decision(min(max(1, waiting, limits.least), limits.most), seen.lacks)
    replicas = min(max(fleet.up, waiting, limits.least), limits.most)
    return Decision(replicas, "the load is not known yet: what there is stays")

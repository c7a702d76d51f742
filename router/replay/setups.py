"""Setups: what is compared side by side, each a whole fleet and whatever routes to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from model_registry.knobs import Knobs
from router.policies import make
from router.replay.engine import Engine
from router.replay.gateways import Exchange, Gateways, Hold
from router.replay.oracle import Oracle
from router.replay.run import Fleet, Router, run
from router.replay.statistics import Slo, Summary, capacity, summary
from router.replay.workload import Workload

STEP = 0.05
"""Of a search for SLO capacity, as a share of where it begins."""


class Setup(NamedTuple):
    """One row of a comparison."""

    name: str
    knobs: Knobs = Knobs()
    exchange: Exchange = Exchange()
    hold: Hold = Hold()
    pooled: bool = False
    """The pooled oracle in place of gateways: one cache of all engines, and the truth at once."""
    fleet: Fleet = Fleet()
    slo: Slo = Slo()

    def router(self, seed: int) -> Callable[[Sequence[Engine]], Router]:
        """What makes the router of one run. Raises `router.policies.PolicyError`."""
        policy = make(self.knobs.policy, self.knobs.policy_options)
        if self.pooled:
            return lambda engines: Oracle(engines, policy, self.fleet.block_tokens, seed)
        return lambda engines: Gateways(engines, self.knobs, seed, self.exchange, self.hold, self.slo)

    def at(
        self,
        workload: Workload,
        rate: float,
        seed: int,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Summary:
        """One run of the workload at a rate."""
        fleet = self.fleet._replace(shared_cache=self.pooled)
        outcomes = run(workload.at(rate, seed), fleet, self.router(seed), progress)
        return summary(outcomes, fleet.card, self.slo)

    def capacity(self, workload: Workload, seed: int, near: float) -> float:
        """SLO capacity in requests per second, looked for from `near` on, to within 1 % of it."""
        known: dict[float, float] = {}

        def met_at(rate: float) -> float:
            if rate not in known:
                known[rate] = self.at(workload, rate, seed).met
            return known[rate]

        low = high = near
        while met_at(high) >= self.slo.share and high < near * 64:
            low, high = high, high * 1.25
        while met_at(low) < self.slo.share and low > near / 64:
            low, high = low / 1.25, low
        return capacity(met_at, self.slo.share, low, high, near * STEP)


POOLED = Setup("pooled oracle", pooled=True)

"""Starts and stops under way, one for each replica."""

from __future__ import annotations

from controller.actuators.dry_run import DryRunPool
from controller.replicas.errands import Errands
from controller.replicas.fence import Fence
from model_registry.entities import Deployment
from model_registry.leadership import Leadership
from model_registry.pools import DryRunActuator, Pool
from model_registry.replicas import Replica
from tests.model_registry.conftest import until

GOING = Replica(name="d.000001", deployment="d", model="m", pool="p", state="stopping")


class Counted(DryRunPool):
    """Counts the stops."""

    stops = 0

    async def stop(self, replica: Replica, deployment: Deployment | None) -> None:
        self.stops += 1


async def test_what_has_gone_is_not_stopped_again_before_that_is_recorded() -> None:
    """A second stop could outlast the record, and meet the next replica in the same place."""
    fence = Fence(0.1)
    fence.renew(Leadership("me", 1))
    errands = Errands(fence, lambda: None)
    pool = Counted(Pool(name="p", actuator=DryRunActuator(type="dry-run")))
    errands.tend(GOING, pool, None)
    await until(lambda: not errands.tasks)
    errands.tend(GOING, pool, None)
    assert errands.tasks == []
    assert pool.stops == 1
    errands.recorded(errands.outcomes)
    await errands.drop()

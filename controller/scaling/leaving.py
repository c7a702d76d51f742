"""Leaving: which of a deployment's replicas is worth least. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controller.desired import Desired
from model_registry.demand.demand import Demand
from model_registry.entities import Deployment
from model_registry.replicas import Replica

_ORDER = {"starting": 0, "ready": 1}


def leaving(deployment: Deployment, replicas: Sequence[Replica], demand: Demand) -> tuple[str, ...]:
    """Their names, least useful first: the youngest on its way, then the one with the fewest requests.

    Of several without requests, the youngest: its caches hold least.
    """

    def worth(replica: Replica) -> tuple[int, int, float, str]:
        requests = 0
        if replica.server is not None:
            known = demand.endpoints.get(Desired(deployment, replica.server).name)
            requests = 0 if known is None else known.requests
        return _ORDER[replica.state], requests, -replica.created, replica.name

    return tuple(one.name for one in sorted((r for r in replicas if r.state in _ORDER), key=worth))

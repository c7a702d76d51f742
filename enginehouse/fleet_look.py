"""FleetLook: everything that one screen shows of a fleet, as a gateway tells it at one moment."""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

import msgspec

from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from model_registry.build_jobs.entities import EngineBuild
from model_registry.demand.demand import Demand
from model_registry.kinds import decode
from model_registry.snapshot import Snapshot

KINDS = ("Deployment", "Endpoint", "Pool", "Replica", "ScalingStatus", "Rollout", "RolloutStatus")
BUILDS = 100
"""The newest: one that goes on is among them, unless so many were asked for after it."""


class FleetLook(NamedTuple):
    """What there is, what it does, and what is being built."""

    snapshot: Snapshot
    demand: Demand
    builds: tuple[EngineBuild, ...]
    """Those that have not ended."""
    note: str | None
    """Why it may be out of date; None when it is not."""


async def look(connection: Connection) -> FleetLook:
    """Ask for all of it at once. Raises ApiError."""
    async with AdminClient(connection) as api:
        *listed, demand, builds = await asyncio.gather(
            *(api.get(f"objects/{kind}") for kind in KINDS),
            api.get("demand"),
            api.get(f"builds?limit={BUILDS}"),
        )
    objects = [decode(one["kind"], json.dumps(item)) for one in listed for item in one["items"]]
    known = msgspec.convert(builds["builds"], list[EngineBuild])
    return FleetLook(
        Snapshot.of(0, objects),
        msgspec.convert(demand, Demand),
        tuple(one for one in known if not one.ended),
        next((str(one["note"]) for one in listed if one["note"]), None),
    )

"""Sight: what the registry's endpoints tell of replicas, and for how long they have told it."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

from controller.desired import endpoint_name
from controller.replicas.acts import Seen
from controller.replicas.placing import is_removed
from model_registry.leadership import boot_s
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot


class Sight:
    """Of one controller; a new leader's counts begin anew, so that it is patient at first."""

    def __init__(self) -> None:
        self._out_since: dict[str, float] = {}

    def see(self, snapshot: Snapshot, lost: Collection[str]) -> dict[str, Seen]:
        """By replica; `lost`: those that their actuator does not find."""
        endpoints = {one.name: one for one in chain(*snapshot.endpoints.values())}
        now_s, seen, out = boot_s(), dict[str, Seen](), dict[str, float]()
        for replica in chain(*snapshot.replicas.values()):
            if replica.server is None:
                drained = replica.state == "starting" and _on_drained(replica, "", snapshot)
                seen[replica.name] = Seen(drained=drained, lost=replica.name in lost)
                continue
            removed = is_removed(replica, snapshot.pools.get(replica.pool))
            name = endpoint_name(replica.deployment, replica.server)
            endpoint = endpoints.get(name)
            ready = endpoint is not None and endpoint.state == "ready"
            if not ready:
                out[replica.name] = self._out_since.get(replica.name, now_s)
            if replica.state == "starting":
                drained = _on_drained(replica, name, snapshot)
            else:
                drained = endpoint is not None and endpoint.state == "draining" and replica.state == "ready"
            seen[replica.name] = Seen(
                endpoint=name,
                ready=ready,
                out_s=now_s - out.get(replica.name, now_s),
                reason=None if endpoint is None else endpoint.reason,
                drained=drained,
                lost=replica.name in lost and not removed,
                removed=removed,
            )
        self._out_since = out
        return seen


def _on_drained(replica: Replica, endpoint: str, snapshot: Snapshot) -> bool:
    """Whether an operator drains where it is coming up: it would not be registered as ready there."""
    http = replica.place or (replica.server.http if replica.server is not None else "")
    return any(drain.covers(endpoint, http) for drain in snapshot.drains.values())

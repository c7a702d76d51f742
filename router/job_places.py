"""Places of jobs: which place in an endpoint's window each job has, from being sent there to its end.

With its place goes its count among what its tenant has under way, and its being the one that others which
begin alike wait for. Owned by the event loop of one gateway process.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from model_registry.knobs import Knobs
from model_registry.snapshot import Snapshot
from router.job import Job
from router.pick import Decision
from router.places import Place, Places
from router.siblings import Siblings
from router.under_way import UnderWay
from router.window import Held


class JobPlaces:
    """One gateway process's."""

    def __init__(
        self,
        places: Places,
        siblings: Siblings,
        snapshot: Callable[[], Snapshot],
        knobs: Callable[[str], Knobs],
    ) -> None:
        self._places = places
        self._siblings = siblings
        self._snapshot = snapshot
        self._knobs = knobs
        self._under_way: dict[str, UnderWay] = {}
        """By model; of requests that use spare capacity only there are none."""

    def closed(self, job: Job, need: Held) -> Set[str]:
        """Endpoints that the request may not go to now: the full ones, and where its profile does not spill
        over, those of others."""
        full = self._places.full_for(need)
        if not full or self._knobs(job.wish.profile).spill_when_full:
            return full
        endpoints = self._snapshot().endpoints.get(job.wish.model.name, ())
        profile = job.wish.profile
        if not any(one.name in full and one.profile == profile and one.state == "ready" for one in endpoints):
            return full
        return full | {one.name for one in endpoints if one.profile != profile}

    def take(self, job: Job, decision: Decision, need: Held) -> Decision:
        """The job goes where it was decided, whether there is room or not; `leave` follows exactly once."""
        assert decision.endpoint is not None
        job.place = self._places.take(decision.endpoint, need)
        if job.spare is None:
            self._under_way_of(job).begin(job.tenant, job.weight)
        self._siblings.begin(job, decision.endpoint.name)
        job.dispatched = True
        return decision

    def leave(self, job: Job) -> Place | None:
        """The job is over, or goes elsewhere: the place that it had, if it had one."""
        if job.lead is not None:
            self._siblings.ended(job)
        place = job.place
        if place is not None:
            job.place = None
            self._places.leave(place)
            if job.spare is None:
                self._end_under_way(job)
        return place

    def is_ahead(self, job: Job) -> bool:
        """Whether the job's tenant has far more under way at its model than others have."""
        known = self._under_way.get(job.wish.model.name)
        return known is not None and known.is_ahead(job.tenant, job.weight)

    def _under_way_of(self, job: Job) -> UnderWay:
        model = job.wish.model.name
        known = self._under_way.get(model)
        if known is None:
            known = self._under_way[model] = UnderWay()
        return known

    def _end_under_way(self, job: Job) -> None:
        under_way = self._under_way_of(job)
        under_way.end(job.tenant)
        if len(under_way) == 0:
            del self._under_way[job.wish.model.name]

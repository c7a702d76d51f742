"""Paces: how long endpoints take to a first token for the work they are given, as this process sees it.

Owned by the event loop of one gateway process. First tokens are not reported one by one: a sweep over the
attempts that wait looks which have theirs, so that a token costs nothing. Only streamed attempts are
timed, since of others the first byte may be the last.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from model_registry.entities import Endpoint
from router.config import OutlierConfig
from router.outliers import Late, Leave, Sample, Timed, late_in_a_row, leave, middle, room, suspects
from telemetry.request_trace import AttemptTrace

_log = logging.getLogger(__name__)
BASE_TOKENS = 512
"""What an attempt costs an engine before its first token besides its prompt, in prompt tokens."""
_SWEEP_S = 0.1
_LATEST = 5
_ENOUGH = 3
_ATTEMPTS = 20
_ENOUGH_ATTEMPTS = 6
_FRESH_S = 60.0
_STEP_WEIGHT = 0.1
_NOBODY: frozenset[str] = frozenset()

Group = tuple[str, str, str]
"""Peers: endpoints of one model, profile and lane."""


@dataclass(slots=True)
class _Record:
    """One endpoint."""

    waiting: dict[AttemptTrace, tuple[int, int]] = field(default_factory=dict)
    """Attempts without a first token: the work they meant when they began, and their own share of it."""
    queued: int = 0
    """Work of all of those together."""
    seen: deque[Timed] = field(default_factory=lambda: deque(maxlen=_LATEST))
    """First tokens that came."""
    failed: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_ATTEMPTS))
    progressed_at_s: float = 0.0
    """When a first token or an end was last noticed."""
    left: Leave | None = None
    """The last time it was left alone; over when its `until_s` is."""
    is_left: bool = False
    well_s: float = float("-inf")
    """When it was last taken back."""
    late: Late | None = None
    """As of the last sweep in which it was judged."""


@dataclass(slots=True)
class _Peers:
    """One group."""

    swept_at_s: float = float("-inf")
    left: frozenset[str] = frozenset()
    pace_s: float | None = None
    step_s: float = 0.0


class Paces:
    """Records by endpoint. `now_s` is `time.monotonic`, the clock of traces."""

    def __init__(self, config: OutlierConfig) -> None:
        self.others: Callable[[str, float], Sequence[Late]] = _nothing_told
        """What other gateway processes saw of an endpoint that is late; by its name, and `now_s`."""
        self._config = config
        self._records: dict[str, _Record] = {}
        self._peers: dict[Group, _Peers] = {}
        self._grouped: dict[str, tuple[Sequence[Endpoint], list[tuple[_Peers, list[Endpoint]]]]] = {}
        """By model, for the endpoints of one snapshot: grouping them anew would cost every decision."""

    def begins(self, endpoint: Endpoint, trace: AttemptTrace, tokens: int) -> None:
        """An attempt whose first token is to be timed; `tokens`: of its prompt, those to be computed."""
        record = self._record(endpoint.name)
        own = tokens + BASE_TOKENS
        record.queued += own
        record.waiting[trace] = record.queued, own

    def ends(self, endpoint: Endpoint, trace: AttemptTrace, failed: bool | None, now_s: float) -> None:
        """An attempt is over; `failed`: by its endpoint's fault, None where it says nothing of it."""
        record = self._record(endpoint.name)
        if trace in record.waiting:
            _note(record, trace)
        if failed is not None:
            record.failed.append((now_s, failed))
            if not failed:
                record.progressed_at_s = now_s

    def answered(self, endpoint: Endpoint, itl_s: float) -> None:
        """An answer's tokens came so far apart, in the mean."""
        peers = self._group(endpoint)
        peers.step_s += (itl_s - peers.step_s) * (_STEP_WEIGHT if peers.step_s else 1.0)

    def left(self, endpoints: Sequence[Endpoint], now_s: float) -> frozenset[str]:
        """Which of one model's endpoints are to be left alone now.

        `endpoints`: all of the model's, as the snapshot has them.
        """
        if not endpoints:
            return _NOBODY
        known = self._grouped.get(endpoints[0].model)
        if known is None or known[0] is not endpoints:
            known = self._grouped[endpoints[0].model] = endpoints, self._by_group(endpoints)
        found = _NOBODY
        for peers, members in known[1]:
            if now_s - peers.swept_at_s >= _SWEEP_S:
                self._sweep(peers, members, now_s)
            if peers.left:
                found |= peers.left
        return found

    def why_left(self, endpoint: str) -> str | None:
        """Why an endpoint is left alone; None: it is not."""
        record = self._records.get(endpoint)
        return record.left.reason if record is not None and record.is_left and record.left else None

    def late(self, now_s: float) -> Mapping[str, Late]:
        """Endpoints whose first tokens come far too late, to be told to other gateway processes."""
        for endpoints, _ in list(self._grouped.values()):
            self.left(endpoints, now_s)  # a sweep, if one is due
        return {name: record.late for name, record in self._records.items() if record.late is not None}

    def expected_s(self, endpoint: Endpoint, tokens: int) -> float | None:
        """Forecast of a first token at an endpoint like its peers, nothing queued; None: nothing seen yet."""
        pace_s = self._group(endpoint).pace_s
        return None if pace_s is None else pace_s * (tokens + BASE_TOKENS)

    def step_s(self, endpoint: Endpoint) -> float:
        """Seconds between two tokens of one answer, lately; 0.0 where nothing is known."""
        return self._group(endpoint).step_s

    def progressed_at_s(self, endpoint: str) -> float:
        """When the endpoint was last known to have brought a first token or a good end."""
        record = self._record(endpoint)
        _look(record)
        return record.progressed_at_s

    def retain(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget endpoints that are no more."""
        names, groups = {one.name for one in endpoints}, {_group_of(one) for one in endpoints}
        for name in self._records.keys() - names:
            if not self._records[name].waiting:
                del self._records[name]
        for group in self._peers.keys() - groups:
            del self._peers[group]
        self._grouped.clear()

    def _by_group(self, endpoints: Sequence[Endpoint]) -> list[tuple[_Peers, list[Endpoint]]]:
        groups: dict[Group, list[Endpoint]] = {}
        for endpoint in endpoints:
            groups.setdefault(_group_of(endpoint), []).append(endpoint)
        return [(self._group(members[0]), members) for members in groups.values()]

    def _sweep(self, peers: _Peers, members: Sequence[Endpoint], now_s: float) -> None:
        peers.swept_at_s = now_s
        records = {one.name: self._record(one.name) for one in members if one.state == "ready"}
        for record in records.values():
            _look(record)
            if record.is_left and record.left is not None and now_s >= record.left.until_s:
                record.is_left = False  # it is judged by what it does from now on
                record.well_s, record.late = record.left.until_s, None
                record.seen.clear()
                record.failed.clear()
                record.waiting.clear()
                record.queued = 0
        staying = {name: record for name, record in records.items() if not record.is_left}
        samples = [_sample(name, record, self.others(name, now_s), now_s) for name, record in staying.items()]
        paces = [one.proven_pace_s for one in samples if one.proven_pace_s is not None]
        if paces:
            peers.pace_s = middle(paces)
            sure_s = self._config.sure_factor * min(paces)
            for sample in samples:
                is_late = sample.attempts and sample.attempts[-1].pace_s > sure_s
                staying[sample.name].late = late_in_a_row(sample, samples, self._config) if is_late else None
        most = room(len(records), len(records) - len(staying), self._config)
        for suspect in suspects(samples, self._config)[:most] if most else ():
            record = records[suspect.name]
            record.left = leave(record.left, now_s, suspect.reason, self._config)
            record.is_left = True
            record.late = suspect.late
            _log.warning(
                "endpoint left alone",
                extra={
                    "endpoint": suspect.name,
                    "reason": suspect.reason,
                    "seconds": record.left.until_s - now_s,
                },
            )
        peers.left = frozenset(name for name, record in records.items() if record.is_left)

    def _record(self, name: str) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
        return record

    def _group(self, endpoint: Endpoint) -> _Peers:
        group = _group_of(endpoint)
        peers = self._peers.get(group)
        if peers is None:
            peers = self._peers[group] = _Peers()
        return peers


def _group_of(endpoint: Endpoint) -> Group:
    return endpoint.model, endpoint.profile, endpoint.lane


def _nothing_told(_endpoint: str, _now_s: float) -> Sequence[Late]:
    return ()


def _look(record: _Record) -> None:
    """Take note of the first tokens that have come."""
    for trace in [trace for trace in record.waiting if trace.first_token_ns is not None]:
        _note(record, trace)


def _note(record: _Record, trace: AttemptTrace) -> None:
    """An attempt that waits no more."""
    work, own = record.waiting.pop(trace)
    record.queued -= own
    if trace.first_token_ns is not None:
        began_s, came_s = trace.start_ns / 1e9, trace.first_token_ns / 1e9
        record.seen.append(Timed(began_s, came_s, (came_s - began_s) / work, work))
        record.progressed_at_s = max(record.progressed_at_s, came_s)


def _sample(name: str, record: _Record, told: Sequence[Late], now_s: float) -> Sample:
    since_s = now_s - _FRESH_S
    latest = [one for one in record.seen if one.came_s is not None and one.came_s > since_s]
    proven_s = middle([one.pace_s for one in latest]) if len(latest) >= _ENOUGH else None
    if record.waiting:
        usual_s = middle([one.pace_s for one in latest]) if latest else 0.0
        for trace, (work, _) in record.waiting.items():
            began_s = trace.start_ns / 1e9
            if now_s - began_s > usual_s * work:
                latest.append(Timed(began_s, None, (now_s - began_s) / work, work))
        latest = latest[-_LATEST:]
    failed = [bad for at_s, bad in record.failed if at_s > since_s]
    enough = len(latest) >= _ENOUGH
    return Sample(
        name,
        middle([one.pace_s for one in latest]) if enough else None,
        proven_s,
        middle([one.work for one in latest]) if enough else 0.0,
        sum(failed) / len(failed) if len(failed) >= _ENOUGH_ATTEMPTS else None,
        latest,
        told,
        record.well_s,
    )

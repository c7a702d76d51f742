"""Explain: the latest routing decisions of this process, with what they were made of.

While requests run a decision is only kept as it is, by reference; it becomes words when somebody asks.
Nothing in it comes from a prompt. Owned by the event loop of one gateway process.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from router.pick import Candidate, Decision
from router.profiles import Wish

_ID = re.compile("[0-9a-f]{24}")
_SHOWN_SCORES = 3
_SHOWN_CHOICES = 4
WhyLeft = Callable[[str], str | None]


class Considered(Struct, frozen=True, gc=False):
    """A decision, and what it was made of."""

    decision: Decision
    candidates: Sequence[Candidate]
    excluded: frozenset[str]
    """Endpoints that this request had tried, or that cannot carry it."""
    left: frozenset[str]
    """Endpoints that were left alone as outliers."""


class Explained(Struct, frozen=True, gc=False):
    """One decision as it is kept."""

    at_s: float
    """`time.time`."""
    request_id: str
    wish: Wish
    attempt: int
    """Of the request, counted from 1."""
    is_hedge: bool
    """For a second attempt beside the first."""
    waited_s: float
    last: str | None
    """How the attempt before it ended."""
    considered: Considered | None
    """None: the request was gone before anything was decided."""
    held_s: float = 0.0
    """Of the request so far, for want of any endpoint that was up."""


class Decisions:
    """The latest decisions, in a ring."""

    def __init__(self, most: int) -> None:
        """`most`: how many are kept; 0: none."""
        self._ring: deque[Explained] = deque(maxlen=most)
        self.keep = self._ring.append
        """Keep one; the oldest goes."""

    def __len__(self) -> int:
        return len(self._ring)

    def find(self, request_id: str | None, model: str | None, limit: int) -> list[Explained]:
        """The newest decisions first, of one request or model where that is given.

        A request is found by the id that its client was told, with or without what stands before it.
        """
        found = _ID.search(request_id) if request_id is not None else None
        begins = request_id if found is None else found.group()
        chosen: list[Explained] = []
        for one in self._newest():
            if len(chosen) == limit:
                break
            if begins is not None and not one.request_id.startswith(begins):
                continue
            if model is None or model in (one.wish.model.name, one.wish.name):
                chosen.append(one)
        return chosen

    def _newest(self) -> Iterator[Explained]:
        return reversed(self._ring)


def as_dict(one: Explained, why_left: WhyLeft) -> dict[str, Any]:
    """A decision in JSON's terms; `why_left` says why an endpoint is left alone now."""
    told: dict[str, Any] = {
        "at_s": round(one.at_s, 3),
        "request_id": one.request_id,
        "model": one.wish.name,
        "profile": one.wish.profile,
        "profile_by": one.wish.reason,
        "attempt": one.attempt,
        "hedge": one.is_hedge,
        "wait_ms": round(one.waited_s * 1000, 3),
        "held_ms": round(one.held_s * 1000, 3),
        "after": one.last,
        "endpoint": None,
        "policy": None,
        "reason": "gone_before_decided",
        "candidates": [],
    }
    if (considered := one.considered) is not None:
        decision = considered.decision
        told["endpoint"] = decision.endpoint.name if decision.endpoint is not None else None
        told["policy"] = decision.policy
        told["reason"] = decision.reason
        told["candidates"] = [_candidate(each, considered, why_left) for each in considered.candidates]
    return told


def line(decisions: Iterable[Explained], answered_by: str | None) -> str:
    """A request's decisions, newest first, as the value of an HTTP header: its last one for each choice.

    `answered_by`: the endpoint that brought the first token, which a hedge's decision alone does not tell.
    """
    latest: dict[str, Explained] = {}
    attempts: dict[str, int] = {}
    for one in decisions:
        if not one.is_hedge:
            latest.setdefault(one.request_id, one)
        attempts[one.request_id] = attempts.get(one.request_id, 0) + 1
    shown = list(latest.items())[:_SHOWN_CHOICES]
    told = ", ".join(
        _in_short(one, answered_by if len(latest) == 1 else None, attempts[name]) for name, one in shown
    )
    return told.encode("ascii", "backslashreplace").decode().replace("\r", " ").replace("\n", " ")


def _in_short(one: Explained, answered_by: str | None, attempts: int) -> str:
    considered = one.considered
    decision = Decision(None, "gone_before_decided", {}) if considered is None else considered.decision
    name = answered_by or (decision.endpoint.name if decision.endpoint is not None else "none")
    parts = [f"endpoint={name}", f"policy={decision.policy}", f"reason={decision.reason}"]
    if decision.scores:
        best = _nearest(decision)[:_SHOWN_SCORES]
        parts.append("scores=" + " ".join(f"{endpoint}:{score:.4g}" for endpoint, score in best))
    parts += [f"wait_ms={one.waited_s * 1000:.1f}", f"attempts={attempts}"]
    if one.held_s:
        parts.append(f"held_ms={one.held_s * 1000:.1f}")
    return "; ".join(parts)


def _nearest(decision: Decision) -> list[tuple[str, float]]:
    """The chosen endpoint's score, then those nearest to it, whichever way is better."""
    own = decision.scores.get(decision.endpoint.name, 0.0) if decision.endpoint is not None else 0.0
    chosen = decision.endpoint.name if decision.endpoint is not None else None
    return sorted(decision.scores.items(), key=lambda item: (item[0] != chosen, abs(item[1] - own)))


def _candidate(each: Candidate, considered: Considered, why_left: WhyLeft) -> dict[str, Any]:
    name = each.endpoint.name
    seen = asdict(each.view)
    return {
        "endpoint": name,
        "profile": each.endpoint.profile,
        "score": considered.decision.scores.get(name),
        "not_taken": _why_not(each, considered, why_left),
        "breaker_admits": each.breaker_admits,
        **{key: value for key, value in seen.items() if key != "name"},
    }


def _why_not(each: Candidate, considered: Considered, why_left: WhyLeft) -> str | None:
    """Why the endpoint was not chosen; None: it was, or others were rated better."""
    name, chosen = each.endpoint.name, considered.decision.endpoint
    if chosen is not None and name == chosen.name:
        return None
    if each.endpoint.state != "ready":
        return each.endpoint.state
    if name in considered.excluded:
        return "tried, or cannot carry the request"
    if not each.breaker_admits:
        return "its breaker is open"
    if name in considered.left:
        return why_left(name) or "left alone as an outlier"
    if name not in considered.decision.scores and considered.decision.scores:
        return "of another profile"
    return None

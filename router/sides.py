"""Sides: which deployment of a rollout serves a request. Pure.

A request's side follows from its session, or else its id, so that a session stays where it is while the
candidate's share grows. A request of the candidate's goes to the stable deployment wherever the candidate has
no room or has failed it; the other way round only where nothing else of the model is left, and never
before the candidate has a share of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from hashlib import blake2b

from model_registry.entities import Endpoint
from model_registry.rolling import Rolling


def lot(rollout: str, key: str) -> float:
    """Where `key` stands between 0 and 1: always the same for one rollout, another for the next."""
    digest = blake2b(f"{rollout}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def served_by(
    rolling: Rolling,
    key: str,
    profile: str,
    lanes: frozenset[str] | None,
    unavailable: Set[str],
    fits: Callable[[Endpoint], bool] | None = None,
    *,
    spare: bool = False,
) -> Sequence[Endpoint]:
    """The endpoints that may serve a request now.

    `unavailable`: names that have failed it, or are full. `fits`: which endpoints its tenant may use; None:
    any. `spare`: a row of a batch job, which keeps to what is proven.
    """
    share = rolling.status.share
    if share <= 0 or spare or profile != rolling.profile:
        return rolling.others
    usable = [one for one in rolling.candidate if _serves(one, lanes, fits) and one.name not in unavailable]
    if not usable:
        return rolling.others
    if lot(rolling.status.name, key) < share:
        return usable
    stands = any(_serves(one, lanes, fits) and one.weight > 0 for one in rolling.others)
    return rolling.others if stands else usable


def _serves(
    endpoint: Endpoint, lanes: frozenset[str] | None, fits: Callable[[Endpoint], bool] | None
) -> bool:
    return (
        endpoint.state == "ready"
        and (lanes is None or endpoint.lane in lanes)
        and (fits is None or fits(endpoint))
    )

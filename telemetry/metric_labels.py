"""Label values: only what is known becomes a label, everything else is `other`.

A client can name any model; a fleet can replace its endpoints for ever. Neither may grow the number of
series without end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

OTHER: Final = "other"

Outcome = Literal[
    "ok", "invalid", "denied", "limited", "unavailable", "timeout", "cancelled", "broken", "failed"
]
OUTCOMES: Final[frozenset[str]] = frozenset(get_args(Outcome))

AttemptOutcome = Literal[
    "ok",
    "unreachable",
    "busy",
    "refused",
    "failed",
    "timeout",
    "broken",
    "protocol",
    "unsupported",
    "adapter_missing",
    "overtaken",
    "cancelled",
]
ATTEMPT_OUTCOMES: Final[frozenset[str]] = frozenset(get_args(AttemptOutcome))

CancelPhase = Literal["parse", "queue", "connect", "first_token", "stream"]
CANCEL_PHASES: Final[frozenset[str]] = frozenset(get_args(CancelPhase))

RefusalReason = Literal[
    "queue_full", "queue_timeout", "predicted_late", "shed", "cold_queue_full", "model_loading"
]
REFUSAL_REASONS: Final[frozenset[str]] = frozenset(get_args(RefusalReason))

FirstTokenTarget = Literal["met", "missed"]

BatchRowOutcome = Literal["completed", "failed", "again", "lost"]
BATCH_ROW_OUTCOMES: Final[frozenset[str]] = frozenset(get_args(BatchRowOutcome))

BATCH_JOB_STATUSES: Final = ("validating", "in_progress", "finalizing", "cancelling")
"""Of jobs that have not ended."""

RolloutSide = Literal["candidate", "stable"]
ROLLOUT_SIDES: Final[frozenset[str]] = frozenset(get_args(RolloutSide))

CopyOutcome = Literal["same", "different", "uncompared", "failed"]
COPY_OUTCOMES: Final[frozenset[str]] = frozenset(get_args(CopyOutcome))

BreakerState = Literal["closed", "half_open", "open"]
BREAKER_STATES: Final[dict[str, int]] = {"closed": 0, "half_open": 1, "open": 2}


def outcome_of(status: int) -> Outcome:
    """The outcome of a request that ended with this HTTP status and did not break later."""
    if status < 400:
        return "ok"
    if status in {401, 403}:
        return "denied"
    if status == 429:
        return "limited"
    if status in {408, 504}:
        return "timeout"
    if status == 499:
        return "cancelled"
    if status < 500:
        return "invalid"
    return "unavailable" if status == 503 else "failed"


class KnownValues:
    """Values of one label that may be shown: at most `limit` different ones in the life of the process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shown: dict[str, str] = {}

    def learn(self, values: Iterable[str]) -> None:
        """Show `values` from now on; those beyond the limit stay `other`."""
        for value in values:
            if value not in self._shown and len(self._shown) < self._limit:
                self._shown[value] = value

    def label(self, value: str | None) -> str:
        """`value` where it is known, else `other`."""
        return self._shown.get(value, OTHER) if value is not None else OTHER

"""Rollout: moving a model's traffic to a new deployment of it, and how far that has come.

Operators write `Rollout`; the leading controller writes the `RolloutStatus` of the same name, and gateways
go by that.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from model_registry.entities import Entity, Name

Phase = Literal["pending", "shadow", "canary", "promoted", "rolled_back", "aborted"]
"""`pending`: the candidate cannot be tried yet. The last three are final."""
Wanted = Literal["run", "pause", "promote", "abort"]
ACTIVE: frozenset[Phase] = frozenset({"shadow", "canary"})
"""Phases in which gateways have something to do."""
FINAL: frozenset[Phase] = frozenset({"promoted", "rolled_back", "aborted"})

Share = Annotated[float, Field(gt=0, le=1)]
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0, le=604_800)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(_Part):
    """Two bounds of one figure: below `harmless` nothing is wrong, from `harmful` on it is a regression.

    What is below the first is not rolled back, and what is above the second is not promoted, each with the
    error probability of the rollout. Between them, either may happen.
    """

    harmless: Annotated[float, Field(ge=0, le=10)]
    harmful: Annotated[float, Field(gt=0, le=10)]

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.harmless >= self.harmful:
            raise PydanticCustomError(
                "limit", "harmless must be below harmful: what lies between is not told"
            )
        return self


class RateLimit(Limit):
    """Of a share of requests, above the same share of the stable deployment itself."""

    harmless: Annotated[float, Field(ge=0, lt=1)]
    harmful: Annotated[float, Field(gt=0, le=1)]


class Limits(_Part):
    """What a candidate may do worse than the stable deployment."""

    errors: RateLimit = RateLimit(harmless=0.01, harmful=0.05)
    """Requests that failed, above the stable deployment's."""
    answers: RateLimit = RateLimit(harmless=0.01, harmful=0.05)
    """Greedy and seeded requests answered by another text, above how often the stable one differs from
    itself."""
    finish: RateLimit = RateLimit(harmless=0.02, harmful=0.1)
    """Requests with another finish reason, above the same."""
    length: Limit = Limit(harmless=0.1, harmful=0.3)
    """Median change of the answers' length, in either direction: 0.1 is a tenth."""
    pace: Limit = Limit(harmless=0.08, harmful=0.2)
    """Median excess of the time per token over the stable deployment's."""
    ttft: Limit = Limit(harmless=0.15, harmful=0.5)
    """Median excess of the time to the first token, among clients' requests."""


class ShadowPlan(_Part):
    """Copies of requests that the candidate answers, too, and nobody sees."""

    share: Share = 1.0
    """Of the requests that can be copied; less where there is no room."""
    self_share: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Of the copies, those that go to the stable deployment: how often it differs from itself."""
    concurrency: _Count = 4
    """Copies at once, of one gateway worker."""
    min_samples: _Count = 100
    """Copies answered by the candidate, at least."""
    min_s: _Seconds = 60.0


class CanaryStep(_Part):
    """A share of the clients' requests that the candidate serves."""

    share: Annotated[float, Field(gt=0, lt=1)]
    min_samples: _Count = 30
    """Requests that the candidate served in this step, at least."""
    min_s: _Seconds = 60.0


DEFAULT_STEPS = tuple(CanaryStep(share=share) for share in (0.01, 0.02, 0.05, 0.1, 0.25, 0.5))


class Rollout(Entity):
    """A candidate deployment is to take the place of a stable one, if it proves no worse."""

    name: Name
    model: Name
    stable: Name
    """The deployment that serves now."""
    candidate: Name
    """Another one of the same model and profile. It is given weight 0 until it is promoted."""
    wanted: Wanted = "run"
    """`pause`: keep the share; it is rolled back all the same where it must be. `promote`: at once, whatever
    is not proven yet. `abort`: everything back to the stable one."""
    run: Annotated[int, Field(ge=1)] = 1
    """A rollout that has ended begins anew with another number."""
    shadow: ShadowPlan | None = ShadowPlan()
    """None: no copies, and each canary step waits for its own proof."""
    steps: Annotated[tuple[CanaryStep, ...], Field(min_length=1, max_length=20)] = DEFAULT_STEPS
    limits: Limits = Limits()
    false_alarm: Annotated[float, Field(gt=0, le=0.1)] = 0.002
    """Probability that a candidate within all `harmless` bounds is ever rolled back for them."""
    false_pass: Annotated[float, Field(gt=0, le=0.1)] = 0.01
    """Probability that one beyond a `harmful` bound is promoted."""
    unready_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """A candidate without a ready endpoint for so long is rolled back."""

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.stable == self.candidate:
            raise PydanticCustomError("candidate", "candidate must be another deployment than stable")
        shares = [step.share for step in self.steps]
        if shares != sorted(set(shares)):
            raise PydanticCustomError("steps", "the shares of steps must grow from step to step")
        return self


class Figure(_Part):
    """One figure of a candidate beside the stable deployment, and what it proves so far."""

    name: str
    """`shadow.answers`, `canary.pace`, ..."""
    candidate: float | None = None
    stable: float | None = None
    p90: float | None = None
    """Of ratios: what nine of ten do not exceed."""
    samples: int = 0
    stable_samples: int = 0
    harmless: float
    harmful: float
    alarm: float = 0.0
    """How far it is proven worse than harmless; 1 rolls back."""
    cleared: float = 0.0
    """How far it is proven better than harmful; 1 is enough."""


class RolloutStatus(Entity):
    """How far a rollout has come; written by the leading controller alone."""

    name: Name
    model: Name
    stable: Name
    candidate: Name
    run: int = 1
    phase: Phase = "pending"
    step: Annotated[int, Field(ge=0)] = 0
    """Of the canary."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the clients' requests that the candidate serves now."""
    copies: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that are copied."""
    self_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    concurrency: Annotated[int, Field(ge=0)] = 0
    epoch: int = 0
    """Tells this run's evidence from that of an earlier one under the same name."""
    started_at: float = 0.0
    """Unix seconds."""
    since: float = 0.0
    """When this phase or step began, Unix seconds."""
    looked_at: float = 0.0
    """When a controller last found it under way, Unix seconds."""
    unready_since: float | None = None
    """Since when the candidate has no ready endpoint."""
    reason: str = ""
    figures: tuple[Figure, ...] = ()
    agreement: float | None = None
    """Mean share of the text that was the same, up to the first difference, of greedy and seeded copies."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """Requests that were not copied, by why."""
    samples: int = 0
    """Of this phase or step."""
    needed: int = 0
    exposed: float = 0.0
    """Share of all clients' requests since the start that the candidate served."""
    eta_s: float | None = None
    """Until the next step, at the present rate; None: cannot be told."""
    evidence_age_s: float | None = None
    """How old the newest report of a gateway was."""

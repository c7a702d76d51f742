"""Why a request gets no endpoint.

RouterError
├── UnknownModelError        no such model, alias or profile
├── ModelNotAllowedError     the tenant's policy does not include the model
├── ProfileNotAllowedError   nor the profile
├── NoEndpointsError         the model has no endpoint that is ready
│   ├── PassedOnError        and another model is to answer instead of holding the request
│   └── ColdModelError       and the one that is being brought up comes too late for the request
│       └── ColdFullError    or as many requests wait for it as may
├── NoRoomError              every endpoint of the model is busy
│   ├── QueueFullError       and as many requests wait as may
│   ├── QueueTimeoutError    and the request waited as long as it may
│   ├── PredictedLateError   its first token would come too late
│   └── ShedError            its prompt would take too much of what is left
└── AttemptsExhaustedError   every endpoint that was tried failed
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from inference.errors import InferenceError


class RouterError(Exception):
    """A request could not be routed."""


class UnknownModelError(RouterError):
    """No such model, alias or profile."""

    def __init__(self, name: str, nearest: str | None = None, profiles: Sequence[str] = ()) -> None:
        hint = f" Did you mean {nearest!r}?" if nearest else " GET /v1/models lists what there is."
        if profiles:
            hint = f" The model's profiles are {', '.join(profiles)}."
        super().__init__(f"The model {name!r} does not exist or you do not have access to it.{hint}")
        self.name = name


class ModelNotAllowedError(RouterError):
    """The tenant's policy does not include the model."""


class ProfileNotAllowedError(RouterError):
    """The tenant's policy, or the key, does not include the profile."""

    def __init__(self, profile: str, allowed: Sequence[str], param: str | None) -> None:
        names = ", ".join(allowed) or "none"
        super().__init__(f"This key may not use the profile {profile!r}. Profiles it may use: {names}.")
        self.param = param


class NoEndpointsError(RouterError):
    """The model has no endpoint that is ready."""


class PassedOnError(NoEndpointsError):
    """The model is not up, and another one that is may answer at once; if that cannot, it is waited for."""

    def __init__(self, model: str, eta_s: float) -> None:
        self.retry_after_s = float(max(1, math.ceil(eta_s)))
        super().__init__(f"The model {model!r} is not up. Try again in {self.retry_after_s:.0f} s.")


class ColdModelError(NoEndpointsError):
    """The model is not up, and will not be soon enough for this request; it should be in `retry_after_s`."""

    _why = "is not up, and will not be in the time that this request may take"

    def __init__(self, model: str, eta_s: float) -> None:
        self.retry_after_s = float(max(1, math.ceil(eta_s)))
        super().__init__(f"The model {model!r} {self._why}. Try again in {self.retry_after_s:.0f} s.")


class ColdFullError(ColdModelError):
    """The model is not up, and as many requests wait for it as may."""

    _why = "is not up, and as many requests wait for it as may wait"


class NoRoomError(RouterError):
    """The capacity exists and is taken.

    After `retry_after_s` this request would be taken if no other came meanwhile.
    """

    _why = "every endpoint is busy"

    def __init__(self, model: str, retry_after_s: float) -> None:
        super().__init__(
            f"The model {model!r} has no room for this request now: {self._why}. "
            f"Try again in {retry_after_s:.0f} s."
        )
        self.retry_after_s = retry_after_s


class QueueFullError(NoRoomError):
    """As many requests wait as may."""

    _why = "as many requests wait as may wait"


class QueueTimeoutError(NoRoomError):
    """It waited as long as its profile lets requests wait."""

    _why = "it has waited as long as it may"


class PredictedLateError(NoRoomError):
    """Its first token would come later than its profile promises."""

    _why = "its first token would come later than its profile allows"


class ShedError(NoRoomError):
    """Its prompt is among the largest, and would delay the answers of too many others."""

    _why = "its prompt would delay the answers of too many others"


class AttemptsExhaustedError(RouterError):
    """Every endpoint that was tried failed; `last` is the last failure.

    The message, which clients see, says why no other is tried and names the last outcome, never its words.
    """

    def __init__(self, message: str, last: InferenceError) -> None:
        super().__init__(message)
        self.last = last

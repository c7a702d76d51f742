"""Whether a caller may use what it asks for."""

from __future__ import annotations

from model_registry.entities import Model
from router.errors import ModelNotAllowedError
from tenancy.keys import Identity


def check_allowed(identity: Identity, model: Model) -> None:
    """Raise ModelNotAllowedError where the caller's tenant may not use `model`."""
    allowed = identity.tenant.allowed_models
    if allowed is not None and model.name not in allowed:
        raise ModelNotAllowedError(
            f"The model {model.name!r} does not exist or you do not have access to it. "
            "GET /v1/models lists what there is."
        )

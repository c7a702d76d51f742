"""Whether a caller may use what it asks for."""

from __future__ import annotations

from router.errors import ModelNotAllowedError
from router.profiles import Wish
from tenancy.access import may_use
from tenancy.keys import Identity


def check_allowed(identity: Identity, wish: Wish) -> None:
    """Raise ModelNotAllowedError where the caller's tenant may not use the model or adapter it wants."""
    if not may_use(identity.tenant, wish.model, wish.adapter):
        raise ModelNotAllowedError(
            f"The model {wish.name!r} does not exist or you do not have access to it. "
            "GET /v1/models lists what there is."
        )

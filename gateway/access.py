"""Whether a caller may use what it asks for, and whether a model serves it."""

from __future__ import annotations

from gateway.api.errors import bad_request
from model_registry.entities import Modality, Model
from router.errors import ModelNotAllowedError
from router.profiles import Wish
from tenancy.access import may_use
from tenancy.keys import Identity

_PATHS: dict[Modality, str] = {
    "text": "/v1/chat/completions, /v1/completions, /v1/responses and /v1/messages",
    "embedding": "/v1/embeddings",
}


def check_allowed(identity: Identity, wish: Wish) -> None:
    """Raise ModelNotAllowedError where the caller's tenant may not use the model or adapter it wants."""
    if not may_use(identity.tenant, wish.model, wish.adapter):
        raise ModelNotAllowedError(
            f"The model {wish.name!r} does not exist or you do not have access to it. "
            "GET /v1/models lists what there is."
        )


def check_modality(model: Model, asked: Modality) -> None:
    """Raise ApiError 400 for a model that serves other paths than this one."""
    if model.modality != asked:
        raise bad_request(
            f"The model {model.name!r} is served at {_PATHS[model.modality]}. Use that, or another model.",
            "model",
            "unsupported_model",
        )

"""Whether a caller may use what it asks for, and whether a model serves it."""

from __future__ import annotations

from gateway.api.errors import bad_request
from model_registry.entities import Modality, Model
from router.errors import ModelNotAllowedError, ProfileNotAllowedError
from router.profiles import BATCH_JOB, FALLBACK, Wish
from tenancy.keys import Identity

_PATHS: dict[Modality, str] = {
    "text": "/v1/chat/completions, /v1/completions, /v1/responses and /v1/messages",
    "embedding": "/v1/embeddings",
}

_PROFILE_FIELDS = {"suffix": "model", "service_tier": "service_tier"}
"""Where in the body a profile was asked for."""


def check_allowed(identity: Identity, wish: Wish) -> None:
    """Raise ModelNotAllowedError or ProfileNotAllowedError where the caller may not use what it wants.

    What a policy falls back to needs no other permission; rows of batch jobs have not chosen their profile.
    """
    policy = identity.policy
    if wish.reason == FALLBACK:
        return
    if policy.models and not policy.allows(wish.model, wish.adapter, wish.asked):
        raise ModelNotAllowedError(
            f"The model {wish.name!r} does not exist or you do not have access to it. "
            "GET /v1/models lists what there is."
        )
    if policy.profiles is None or wish.reason == BATCH_JOB:
        return
    if not policy.allows_profile(wish.profile):
        raise ProfileNotAllowedError(wish.profile, policy.profiles, _PROFILE_FIELDS.get(wish.reason))


def check_modality(model: Model, asked: Modality) -> None:
    """Raise ApiError 400 for a model that serves other paths than this one."""
    if model.modality != asked:
        raise bad_request(
            f"The model {model.name!r} is served at {_PATHS[model.modality]}. Use that, or another model.",
            "model",
            "unsupported_model",
        )

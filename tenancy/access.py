"""Access: which models and adapters a tenant may use. Pure."""

from __future__ import annotations

from model_registry.entities import Adapter, Model, Tenant


def may_use(tenant: Tenant, model: Model, adapter: Adapter | None = None) -> bool:
    """Whether `tenant` may use `model`, or `adapter` of it.

    Who may use a model may use its adapters, except `restricted` ones: they must be allowed by name, and
    being allowed an adapter does not allow its base. A tenant that is allowed all is allowed those, too.
    """
    allowed = tenant.allowed_models
    if allowed is None:
        return True
    if adapter is None:
        return model.name in allowed
    return adapter.full_name in allowed or (model.name in allowed and not adapter.restricted)

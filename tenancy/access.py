"""Access: which models and adapters a list of allowed names stands for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from model_registry.entities import Adapter, Model

ANY = "*"


def may_use(
    allowed: Sequence[str], model: Model, adapter: Adapter | None = None, asked: str | None = None
) -> bool:
    """Whether `allowed` includes `model`, or `adapter` of it, when asked for by the name `asked`.

    Who may use a model may use its adapters, except `restricted` ones: they must be allowed by name, and
    being allowed an adapter does not allow its base. Who is allowed an alias may ask for what it stands for
    by that name only. `*` is all, restricted adapters included.
    """
    if ANY in allowed or (asked is not None and asked in allowed and _is_alias(asked, model, adapter)):
        return True
    if adapter is None:
        return model.name in allowed
    return adapter.full_name in allowed or (model.name in allowed and not adapter.restricted)


def _is_alias(asked: str, model: Model, adapter: Adapter | None) -> bool:
    return asked in (model if adapter is None else adapter).aliases

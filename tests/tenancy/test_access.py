"""Who may use a model or an adapter of it."""

from __future__ import annotations

import pytest

from model_registry.entities import Adapter, Model, Tenant
from tenancy.access import may_use

MODEL = Model(name="chat", context_length=10)
OPEN = Adapter(name="open", model="chat")
RESTRICTED = Adapter(name="own", model="chat", restricted=True)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, (True, True, True)),
        ((), (False, False, False)),
        (("chat",), (True, True, False)),
        (("chat", "chat+own"), (True, True, True)),
        (("chat+open",), (False, True, False)),
        (("open", "own"), (False, False, False)),
    ],
)
def test_a_model_brings_its_adapters_but_those_that_are_restricted(
    allowed: tuple[str, ...] | None, expected: tuple[bool, bool, bool]
) -> None:
    tenant = Tenant(name="t", allowed_models=allowed)
    assert expected == tuple(may_use(tenant, MODEL, adapter) for adapter in (None, OPEN, RESTRICTED))

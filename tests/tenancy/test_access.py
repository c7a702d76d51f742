"""Who may use a model or an adapter of it."""

from __future__ import annotations

import pytest

from model_registry.entities import Adapter, Model
from tenancy.access import may_use

MODEL = Model(name="chat", context_length=10)
OPEN = Adapter(name="open", model="chat")
RESTRICTED = Adapter(name="own", model="chat", restricted=True)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (("*",), (True, True, True)),
        ((), (False, False, False)),
        (("chat",), (True, True, False)),
        (("chat", "chat+own"), (True, True, True)),
        (("chat+open",), (False, True, False)),
        (("open", "own"), (False, False, False)),
    ],
)
def test_a_model_brings_its_adapters_but_those_that_are_restricted(
    allowed: tuple[str, ...], expected: tuple[bool, bool, bool]
) -> None:
    assert expected == tuple(may_use(allowed, MODEL, adapter) for adapter in (None, OPEN, RESTRICTED))


def test_an_alias_allows_what_it_stands_for_by_that_name_only() -> None:
    model = MODEL.model_copy(update={"aliases": ("fast", "slow")})
    restricted = RESTRICTED.model_copy(update={"aliases": ("fast-own",)})
    assert may_use(("fast",), model, asked="fast")
    assert not may_use(("fast",), model, asked="slow")
    assert not may_use(("fast",), model, asked="chat")
    assert not may_use(("else",), model, asked="else")
    assert may_use(("fast-own",), model, restricted, asked="fast-own")
    assert not may_use(("fast",), model, restricted, asked="fast+own")

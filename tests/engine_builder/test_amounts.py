"""Amounts in words."""

from __future__ import annotations

import pytest

from engine_builder.amounts import bytes_told, parameters_told


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 B"), (1023, "1023 B"), (954_368, "932.0 KiB"), (3 << 29, "1.5 GiB"), (5 << 40, "5.0 TiB")],
)
def test_bytes(number: int, told: str) -> None:
    assert bytes_told(number) == told


@pytest.mark.parametrize(("number", "told"), [(8_030_261_248, "8.0 B"), (1_250_000, "1.2 M"), (12, "12")])
def test_parameters(number: int, told: str) -> None:
    assert parameters_told(number) == told

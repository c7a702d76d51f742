"""Amounts in words: bytes, and parameters of models. Pure."""

from __future__ import annotations

_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_PARAMETERS = ((10**9, "B"), (10**6, "M"), (10**3, "K"))


def bytes_told(number: int) -> str:
    """`1.5 GiB`, `12.0 MiB`, `7 B`."""
    return _told(number, _BYTES, " B")


def parameters_told(number: int) -> str:
    """`8.0 B` as in billions, `1.3 M`, `900`."""
    return _told(number, _PARAMETERS, "")


def _told(number: int, units: tuple[tuple[int, str], ...], one: str) -> str:
    for size, name in units:
        if number >= size:
            return f"{number / size:.1f} {name}"
    return f"{number}{one}"

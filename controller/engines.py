"""Engines: why a deployment's servers may not get requests yet. Pure."""

from __future__ import annotations

from model_registry.engines import Engine


def refusal(named: str | None, engine: Engine | None, emulated: bool | None) -> str | None:
    """Why a server of a deployment that names the engine `named` gets no requests; None: it may.

    `engine`: the registry's record. `emulated`: whether the server runs a CPU engine; None: not known yet.
    """
    if named is None:
        return None
    if engine is None:
        return f"engine {named!r} is not in the registry"
    if engine.preflight is None:
        return f"engine {named!r} has not been through preflight: enginehouse preflight {named} --server URL"
    if not engine.preflight.passed:
        failed = next((check for check in engine.preflight.checks if not check.passed), None)
        why = "" if failed is None else f" ({failed.name}: {failed.detail})"
        return f"engine {named!r} has not passed preflight{why}"
    if emulated is True and engine.runtime != "emulated":
        return f"engine {named!r} is of {engine.runtime}, and the server is an emulator"
    if emulated is False and engine.runtime == "emulated":
        return f"engine {named!r} is emulated, and the server is no emulator: build it for real"
    return None

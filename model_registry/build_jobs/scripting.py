"""Scripts: the Lua files beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from model_registry.build_jobs.entities import BuildState
from model_registry.connection import RedisClient
from model_registry.scripting import NamedScripts
from model_registry.states import BUILD

NAMES = ("ask", "beat", "cancel", "claim", "finish", "forget", "release")


def source(name: str) -> str:
    """The text that Redis runs: the table of states, the prelude, the script."""
    folder = files("model_registry.build_jobs") / "scripts"
    parts = [(folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", name)]
    return "\n".join((_lua(BUILD), *parts))


def _lua(table: Mapping[BuildState, frozenset[BuildState]]) -> str:
    """`NEXT[state][following]` is true for what may follow."""
    rows = (
        f"{state} = {{ {', '.join(f'{following} = true' for following in sorted(allowed))} }}"
        for state, allowed in table.items()
    )
    return f"local NEXT = {{ {', '.join(rows)} }}"


def scripts(redis: RedisClient, answer_within_s: float) -> NamedScripts:
    """All of them."""
    return NamedScripts(redis, {name: source(name) for name in NAMES}, answer_within_s)

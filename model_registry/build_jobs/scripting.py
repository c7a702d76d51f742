"""Scripts: the Lua files beside this module. Redis is sent a text once and its hash from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from model_registry.build_jobs.entities import BuildState
from model_registry.connection import RedisClient, answer
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


class Scripts:
    """All scripts, run by name."""

    def __init__(self, redis: RedisClient, answer_within_s: float) -> None:
        self._scripts = {name: redis.register_script(source(name)) for name in NAMES}
        self._answer_within_s = answer_within_s

    async def run(self, name: str, keys: Sequence[str], *args: str | int) -> Any:
        """Run one script; what it returns is said in its header."""
        async with answer(self._answer_within_s):
            return await self._scripts[name](keys=list(keys), args=args)

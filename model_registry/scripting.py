"""Scripts: the Lua files beside this module, each run by name with the registry's keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from model_registry.connection import RedisClient, answer

NAMES = ("claim", "commit", "load", "renew", "resign", "sweep")


def source(name: str) -> str:
    """The text that Redis runs: the shared prelude, then the script."""
    folder = files("model_registry") / "scripts"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", name))


class NamedScripts:
    """Scripts run by name. Redis is sent a text once and its hash from then on."""

    def __init__(self, redis: RedisClient, texts: Mapping[str, str], answer_within_s: float) -> None:
        self._scripts = {name: redis.register_script(text) for name, text in texts.items()}
        self._answer_within_s = answer_within_s

    async def run(self, name: str, keys: Sequence[str], *args: str | int) -> Any:
        """Run one; what it returns is said in its header."""
        async with answer(self._answer_within_s):
            return await self._scripts[name](keys=list(keys), args=args)


class Scripts:
    """The scripts of one registry, which all get its keys."""

    def __init__(self, redis: RedisClient, keys: Sequence[str], answer_within_s: float) -> None:
        self._scripts = NamedScripts(redis, {name: source(name) for name in NAMES}, answer_within_s)
        self._keys = list(keys)

    async def run(self, name: str, *args: str | int, more_keys: Sequence[str] = ()) -> Any:
        """Run one script; what it returns is said in its header."""
        return await self._scripts.run(name, [*self._keys, *more_keys], *args)

"""Scripts: the Lua files beside this module. Redis is sent a text once and its hash from then on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from model_registry.connection import RedisClient, answer

_OF_A_JOB = ("create_job", "stop", "claim", "renew", "release", "validated", "refused", "record", "finished")
_OF_A_FILE = ("add_file", "delete_file")
_ALONE = ("page", "pulse")


def source(name: str) -> str:
    """The text that Redis runs: the prelude of its kind, then the script."""
    folder = files("tenancy.batch_jobs") / "scripts"
    prelude = ("prelude",) if name in _OF_A_JOB else ("file_prelude",) if name in _OF_A_FILE else ()
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in (*prelude, name))


class Scripts:
    """All scripts, run by name."""

    def __init__(self, redis: RedisClient, answer_within_s: float) -> None:
        names = (*_OF_A_JOB, *_OF_A_FILE, *_ALONE)
        self._scripts = {name: redis.register_script(source(name)) for name in names}
        self._answer_within_s = answer_within_s

    async def run(self, name: str, keys: Sequence[str], *args: str | int) -> Any:
        """Run one script; what it returns is said in its header."""
        async with answer(self._answer_within_s):
            return await self._scripts[name](keys=list(keys), args=args)

"""Scripts: the Lua files beside this module."""

from __future__ import annotations

from importlib.resources import files

from model_registry.connection import RedisClient
from model_registry.scripting import NamedScripts

_OF_A_JOB = ("create_job", "stop", "claim", "renew", "release", "validated", "refused", "record", "finished")
_OF_A_FILE = ("add_file", "delete_file")
_ALONE = ("page", "pulse")


def source(name: str) -> str:
    """The text that Redis runs: the prelude of its kind, then the script."""
    folder = files("tenancy.batch_jobs") / "scripts"
    prelude = ("prelude",) if name in _OF_A_JOB else ("file_prelude",) if name in _OF_A_FILE else ()
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in (*prelude, name))


def scripts(redis: RedisClient, answer_within_s: float) -> NamedScripts:
    """All of them."""
    names = (*_OF_A_JOB, *_OF_A_FILE, *_ALONE)
    return NamedScripts(redis, {name: source(name) for name in names}, answer_within_s)

"""Step: one command of a build, and what it takes and leaves. Values only.

A build is a list of steps in an order in which each finds what it needs. What a step leaves is kept under
its `key`, the digest of all that went in: a step whose key is in the cache already is not run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

OUTPUT = "{output}"
"""In arguments and files: the folder that the step writes; `{NAME}` is that of an earlier step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One program run in a folder of its own; it has succeeded when it exits with 0 and `expects` are there.

    Arguments, environment and files may hold `{output}` and `{NAME}` of a step in `needs`; other braces are
    written doubled.
    """

    name: str
    """A word: `convert`, `quantize`, `compile`, `launch`."""
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Names of steps whose output it reads."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What else goes in, and `argv` does not tell: `checkpoint` and its digest, `tool` and its version."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts written below the output before it starts, by path."""
    expects: tuple[str, ...] = ()
    """Paths below the output that must be there afterwards, as glob patterns: `rank0.engine`."""
    timeout_s: float = 3600.0
    gpus: int = 0
    """That it takes."""
    disk_bytes: int = 0
    """Free space that it wants for its output."""
    memory_bytes: int = 0
    """Host memory that it wants."""

    def key(self, needed: Mapping[str, str]) -> str:
        """The digest of all that goes in, hex; `needed`: keys of the steps in `needs`, by name."""
        whole = {
            "name": self.name,
            "argv": self.argv,
            "needs": {name: needed[name] for name in self.needs},
            "inputs": dict(self.inputs),
            "environment": dict(self.environment),
            "files": dict(self.files),
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def escaped(text: str) -> str:
    """A text for a step's arguments and files, where single braces name folders."""
    return text.replace("{", "{{").replace("}", "}}")


def keys(steps: tuple[Step, ...]) -> dict[str, str]:
    """The key of each step by name, in order."""
    found: dict[str, str] = {}
    for step in steps:
        found[step.name] = step.key(found)
    return found

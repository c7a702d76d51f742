"""The C tools under `src/`, compiled on first use into `build/`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror=implicit-function-declaration")


class BenchError(Exception):
    """The benchmark cannot run; the message says what to do."""


def tool(name: str) -> Path:
    """Path of the compiled `src/<name>.c`; compiles it when missing or older than its source."""
    source = HERE / "src" / f"{name}.c"
    binary = HERE / "build" / name
    if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
        return binary
    binary.parent.mkdir(exist_ok=True)
    fresh = binary.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler(), *FLAGS, "-o", str(fresh), str(source), "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"cannot compile {source.name}:\n{done.stderr}")
    fresh.rename(binary)
    return binary


def compiler() -> str:
    """The C compiler: `CC`, or the first of cc, gcc and clang on PATH."""
    candidates = [os.environ["CC"]] if "CC" in os.environ else ["cc", "gcc", "clang"]
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    raise BenchError("no C compiler found; install one (Debian: `apt install gcc libc6-dev`) or set CC")

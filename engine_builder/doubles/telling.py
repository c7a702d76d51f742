"""What a double prints while it works, as the real programs do, and how it ends when it cannot go on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

from engine_builder.errors import BuilderError

PAUSE = "EMULATED_BUILD_PAUSE_S"
"""Environment variable: seconds to wait after each line, for whoever wants to see a build run."""
VERSION = "EMULATED_TENSORRT_LLM_VERSION"
"""Environment variable: the version of TensorRT-LLM that a double speaks for."""


def say(line: str) -> None:
    """One line of the log, at once."""
    now = time.strftime("%m/%d/%Y-%H:%M:%S")
    sys.stdout.write(f"[{now}] [TRT-LLM] [I] {line}\n")
    sys.stdout.flush()
    pause = float(os.environ.get(PAUSE) or 0)
    if pause > 0:
        time.sleep(pause)


def run(main: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None) -> int:
    """Runs a program: 0, or 1 with the reason on standard error."""
    try:
        main(arguments)
    except (BuilderError, OSError) as error:
        remedy = getattr(error, "remedy", "")
        sys.stderr.write(f"[TRT-LLM] [E] {error}" + (f"; {remedy}" if remedy else "") + "\n")
        return 1
    return 0

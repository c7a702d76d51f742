"""Campaign: how a benchmark or live campaign is asked for, and ends: `RESULT {json}` and an exit status."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from bench.build import BenchError
from enginehouse.errors import CommandError
from enginehouse.interrupted import until_done

NOT_MEASURED = 2
INTERRUPTED, ENDED = 130, 143


def parser(about: str | None, example: str) -> argparse.ArgumentParser:
    """Named as `example` begins, which its help ends with; `about` is the module's docstring."""
    return argparse.ArgumentParser(
        prog=" ".join(example.split()[:3]),
        description=about,
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def said_since(began_s: float, about: str = "") -> Callable[[str], None]:
    """Says a line on stderr, behind the seconds since `began_s` of the monotonic clock."""

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began_s:5.1f} s] {about}{text}", file=sys.stderr, flush=True)

    return say


def concluded(work: Coroutine[Any, Any, dict[str, Any]] | Callable[[], dict[str, Any]]) -> int:
    """Run it and print what it came to. 0: its `ok`; 1: not; 2: it could not be measured; 130: interrupted.

    SIGTERM ends it as Ctrl-C does; out of what is to be called comes SystemExit(143) then.
    """
    try:
        if callable(work):
            with _ended_by_sigterm():
                result = work()
        else:
            result = asyncio.run(until_done(work))
    except (BenchError, CommandError, TimeoutError) as error:
        message = str(error) or "a part took too long"
        print(f"error: {message}", file=sys.stderr)
        result, status = {"ok": False, "error": message}, NOT_MEASURED
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; nothing is left running", file=sys.stderr)
        return INTERRUPTED
    else:
        status = 0 if result["ok"] else 1
    print("RESULT " + json.dumps(result, separators=(",", ":")), flush=True)
    return status


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

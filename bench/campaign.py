"""Campaign: how a live campaign ends: one line `RESULT {json}`, and an exit status."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any

from bench.build import BenchError
from enginehouse.errors import CommandError


def concluded(work: Coroutine[Any, Any, dict[str, Any]]) -> int:
    """Run it and print what it came to; 0: its `ok`, 1: not, 2: it could not be run, 130: interrupted."""
    try:
        result = asyncio.run(work)
    except (BenchError, CommandError, TimeoutError) as error:
        print(f"error: {error or 'a part took too long'}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; nothing is left running", file=sys.stderr)
        return 130
    print("RESULT " + json.dumps(result, separators=(",", ":")))
    return 0 if result["ok"] else 1

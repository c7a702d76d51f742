"""The stub model server of `src/stub.c`: started, paced and asked for what it has seen."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from bench.build import BenchError, tool
from bench.processes import Process


class Counters(TypedDict):
    """What the stub has seen since the last reset."""

    requests: int
    streams: int
    tokens: int
    aborted: int
    active: int
    max_active: int
    last_end_ns: int


class Stub:
    """One stub on a core of its own; `close` ends it."""

    def __init__(self, core: int, log: Path, options: Sequence[str] = ()) -> None:
        self.process = Process([str(tool("stub")), *options], core, log, read_stdout=True)
        self.port = int(self.process.first_line().split()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def pace(self, *, interval_us: int, tokens: int = 100) -> None:
        """Every stream from now on: `interval_us` between tokens. Resets the counters."""
        self._get(f"/_set?interval_us={interval_us}&tokens={tokens}&reset=1")

    def counters(self) -> Counters:
        return self._get("/_counters")

    def wait_for_active(self, count: int, timeout_s: float) -> Counters:
        """Poll until exactly `count` streams are open; raises BenchError when that does not come."""
        deadline = time.monotonic() + timeout_s
        while (seen := self.counters())["active"] != count:
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{seen['active']} streams open at the stub after {timeout_s:.0f} s, not {count}"
                )
            time.sleep(0.02)
        return seen

    def close(self) -> None:
        self.process.stop()

    def _get(self, path: str) -> Counters:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            counters: Counters = json.load(answer)
        return counters

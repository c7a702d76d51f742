"""Benchmarks with a runner of their own, called by `python -m bench` as part of the run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bench.build import BenchError
from bench.processes import ROOT

EXTRAS = {
    "transports": "bench.transports",
    "registry": "bench.registry_propagation",
    "micro": "bench.micro",
    "embeddings": "bench.embeddings",
}
"""Name -> module, which takes `--quick` and ends with a line `RESULT {json}`."""
TIMEOUT_S = 900


def run(name: str, quick: bool) -> dict[str, Any]:
    """What the benchmark says of itself. Raises BenchError when it fails."""
    command = [sys.executable, "-m", EXTRAS[name], *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not told:
        words = (done.stderr or done.stdout)[-800:].strip()
        raise BenchError(f"`python -m {EXTRAS[name]}` ended with {done.returncode}: {words}")
    result: dict[str, Any] = json.loads(told[-1].removeprefix("RESULT "))
    return result

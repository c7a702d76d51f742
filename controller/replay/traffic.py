"""Traffic: how many requests come in each second, and how much work they are.

Reads ServeGen's traces of rates (Xiang et al., 2025), as published or summed over clients, and every trace of
requests that `router.replay.workload` knows.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.replay.workload import TraceError, Workload

Floats = NDArray[np.float64]

RATE_COLUMNS = {"timestamp", "rate"}
WINDOW_S = 600
"""Of ServeGen's rates."""
CLUMPING = 2.0
"""Variance of the requests of a second beside their mean; 1: each comes for itself. Rates alone do not say;
with this one, Knative's and Kubernetes' autoscalers come out as in the project's reference simulation."""
BUNDLED = ("m-large", "m-small", "deepseek-r1", "mm-image")
_PACKED = b"\x1f\x8b"


class Rates(NamedTuple):
    """Requests per second in windows of `WINDOW_S`."""

    name: str
    each: Floats

    def traffic(
        self,
        seed: int,
        request_s: float,
        scale: float = 1.0,
        days: float | None = None,
        *,
        steps: bool = False,
    ) -> Traffic:
        """Requests at these rates, `scale` times as many, each of them `request_s` of work.

        Rates go in straight lines from the middle of a window to that of the next; `steps`: they jump.
        """
        rates = self.each * scale
        if days is not None:
            rates = rates[: max(1, round(days * 86_400 / WINDOW_S))]
        seconds = np.arange(len(rates) * WINDOW_S)
        if steps:
            mean = np.repeat(rates, WINDOW_S)
        else:
            mean = np.interp(seconds, (np.arange(len(rates)) + 0.5) * WINDOW_S, rates)
        random = np.random.default_rng(seed)
        clumped = random.gamma(np.maximum(mean, 1e-9) / (CLUMPING - 1), CLUMPING - 1)
        requests = random.poisson(clumped).astype(np.float64)
        return Traffic(self.name, requests, requests * request_s)


class Traffic(NamedTuple):
    """By second."""

    name: str
    requests: Floats
    work: Floats
    """In replica-seconds."""

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return len(self.requests)


def bundled(name: str) -> Rates:
    """Rates of `BUNDLED` that come with this package."""
    return read_rates(Path(__file__).parent / "traces" / f"servegen_{name.replace('-', '_')}.csv", name)


def read_rates(path: Path, name: str | None = None) -> Rates:
    """ServeGen's csv, gzip or not. Raises TraceError."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(_PACKED) else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(
            f"{path}: cannot be read ({error}). Name a csv file, packed by gzip or not."
        ) from error
    sums: defaultdict[int, float] = defaultdict(float)
    for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
        try:
            at_s, rate = float(row["timestamp"]), float(row["rate"])
            if not (at_s >= 0 and 0 <= rate < float("inf")):
                raise ValueError("neither may be below 0")
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(
                f"{path}, line {number}: {error}. Each row needs the numbers `timestamp` (s) and `rate` "
                "(requests/s), as in ServeGen's traces."
            ) from error
        sums[int(at_s // WINDOW_S)] += rate
    if not any(sums.values()):
        raise TraceError(f"{path}: has no requests in it.")
    windows = range(min(sums), max(sums) + 1)
    return Rates(name or path.name.split(".")[0], np.array([sums[one] for one in windows]))


def has_rates(path: Path) -> bool:
    """Whether a file is a trace of rates; False also where it cannot be read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _PACKED
        with gzip.open(path, "rt") if packed else path.open() as lines:
            return set(lines.readline().strip().split(",")) >= RATE_COLUMNS
    except (OSError, EOFError, UnicodeDecodeError):
        return False


def of_requests(
    workload: Workload,
    work_s: Callable[[int, int], float],
    scale: float = 1.0,
    seed: int = 1,
    days: float | None = None,
) -> Traffic:
    """A trace of requests; `work_s`: what one takes of a replica, by its prompt's and answer's tokens.

    `scale`: as if so many came in place of each. `seed` spreads requests within the ticks of a coarse clock.
    """
    workload = workload.at(workload.rate, seed)
    if days is not None:
        workload = workload.first(days * 86_400)
    seconds = int(workload.requests[-1].arrival_s) + 1
    requests, work = np.zeros(seconds), np.zeros(seconds)
    for one in workload.requests:
        requests[int(one.arrival_s)] += scale
        work[int(one.arrival_s)] += scale * work_s(one.prompt_tokens, one.output_tokens)
    return Traffic(workload.name, requests, work)

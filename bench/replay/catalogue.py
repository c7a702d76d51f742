"""Catalogue: who asks for which of many models, and when, after recorded rates of a provider's clients.

Each client of the record stands for one fine-tuned model. Within each of the record's windows its requests
are a renewal process with Gamma gaps of the recorded mean and coefficient of variation. It begins anew in
each window, which puts bursts at their beginnings and is harder on memory, or it is in equilibrium there.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 600.0
DAY_S = 86_400.0
LEAST_CV = 0.3
"""Windows of few requests are recorded as regular as clockwork; nothing is."""
TRACES = Path(__file__).parent / "traces"


class Arrivals(NamedTuple):
    """Requests in order of time."""

    times_s: NDArray[np.float64]
    models: NDArray[np.int64]
    """Of each request, from 0 on."""
    of_models: int
    """How many there are, those that nobody asks for included."""

    @property
    def span_s(self) -> float:
        return float(self.times_s[-1])


class Window(NamedTuple):
    """A client's traffic for `WINDOW_S`."""

    client: int
    window: int
    rate: float
    cv: float


def windows(name: str) -> list[Window]:
    """Of the record `servegen_<name>.csv.gz` beside this module."""
    text = gzip.decompress((TRACES / f"servegen_{name}.csv.gz").read_bytes()).decode()
    return [
        Window(int(row["client"]), int(row["window"]), float(row["rate"]), float(row["cv"]))
        for row in csv.DictReader(StringIO(text))
    ]


def arrivals(
    recorded: Sequence[Window], days: range, rate: float, seed: int, *, anew: bool = True
) -> Arrivals:
    """Those of whole days, thinned alike to `rate` requests per second on average.

    `anew`: begin anew in each window, which makes some tenths more than `rate` of them.
    """
    per_day = int(DAY_S / WINDOW_S)
    first, last = days.start * per_day, days.stop * per_day
    mine = [one for one in recorded if first <= one.window < last]
    scale = rate * (last - first) / sum(one.rate for one in mine)
    rng = np.random.default_rng(seed)
    times, models = [], []
    for one in mine:
        came = _renewals(rng, one.rate * scale, max(one.cv, LEAST_CV), anew)
        times.append((one.window - first) * WINDOW_S + came)
        models.append(np.full(len(came), one.client))
    whole, who = np.concatenate(times), np.concatenate(models)
    order = np.argsort(whole, kind="stable")
    return Arrivals(whole[order], who[order], max(one.client for one in recorded) + 1)


def _renewals(rng: np.random.Generator, rate: float, cv: float, anew: bool) -> NDArray[np.float64]:
    """Times within one window. In equilibrium, the gap it begins in is longer than others, by its length."""
    shape = 1 / cv**2
    scale = 1 / (rate * shape)
    first = rng.gamma(shape, scale) if anew else rng.random() * rng.gamma(shape + 1, scale)
    at = np.array([first])
    while at[-1] < WINDOW_S:
        gaps = rng.gamma(shape, scale, int(rate * WINDOW_S) + 64)
        at = np.concatenate([at, at[-1] + np.cumsum(gaps)])
    return at[at < WINDOW_S]

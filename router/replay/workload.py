"""Workload: the requests of a trace, as times, lengths and prompt blocks.

Reads the public formats as they are published, packed by gzip or not: Mooncake's jsonl (FAST'25) and the csv
of Azure's LLM inference traces; and a csv of Mooncake's columns with hashes as runs, a fifth of the size, in
which one comes with this package. None has any text in it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

MOONCAKE_BLOCK_TOKENS = 512
AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE_COLUMNS = ("timestamp", "input_length", "output_length", "hash_runs")
PACKED = b"\x1f\x8b"
BUNDLED = {
    "mooncake": "mooncake_conversation.csv.gz",
    "azure": "azure_conversation_2023.csv.gz",
}
"""Traces that come with this package; their README says whose they are."""


class TraceError(ValueError):
    """A trace cannot be read; the message names the line and the remedy."""


class Request(NamedTuple):
    """One request of a workload."""

    arrival_s: float
    """When it reaches a gateway."""
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Hashes of the prompt's whole blocks, each chained to those before it."""
    tenant: str = ""
    critical: bool = False
    number: int = 0
    """Which one of the workload it is."""


class Workload(NamedTuple):
    """Requests in the order of their arrival."""

    name: str
    requests: Sequence[Request]
    block_tokens: int = MOONCAKE_BLOCK_TOKENS
    tick_s: float = 0.0
    """How coarse the trace's clock is."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.requests) / max(1e-9, self.requests[-1].arrival_s + self.tick_s)

    def at(self, rate: float, seed: int) -> Workload:
        """The same at `rate` requests per second: a faster or slower clock, ticks spread by `seed`."""
        random = Random(seed)
        speed = self.rate / rate
        spread = sorted(
            request._replace(arrival_s=(request.arrival_s + random.random() * self.tick_s) * speed)
            for request in self.requests
        )
        return self._replace(
            requests=[request._replace(number=number) for number, request in enumerate(spread)], tick_s=0.0
        )

    def first(self, seconds: float) -> Workload:
        """Its beginning only."""
        return self._replace(requests=[one for one in self.requests if one.arrival_s < seconds])


def bundled(name: str) -> Workload:
    """A trace of `BUNDLED`."""
    return read(bundled_path(name))


def bundled_path(name: str) -> Path:
    """Where it is."""
    return Path(__file__).parent / "traces" / BUNDLED[name]


def read(path: Path) -> Workload:
    """A trace in one of the public formats, told apart by its first line. Raises TraceError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}. Name a trace file that can be read.") from error
    try:
        text = (gzip.decompress(data) if data.startswith(PACKED) else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: neither text nor text packed by gzip ({error}).") from error
    name = path.name.split(".")[0]
    if text.lstrip().startswith("{"):
        return _workload(name, path, _mooncake(path, text))
    columns = text.split("\n", 1)[0].strip().split(",")
    rows = csv.DictReader(io.StringIO(text))
    if set(AZURE_COLUMNS) <= set(columns):
        return _workload(name, path, _azure(path, rows))
    if set(MOONCAKE_COLUMNS) <= set(columns):
        return _workload(name, path, _mooncake_runs(path, rows))
    raise TraceError(
        f"{path}, line 1: is neither a line of Mooncake's jsonl nor has it the columns "
        f"{', '.join(AZURE_COLUMNS)} of Azure's csv or {', '.join(MOONCAKE_COLUMNS)}."
    )


def _workload(name: str, path: Path, requests: Iterator[Request]) -> Workload:
    found = sorted(requests)
    if len(found) < 2:
        raise TraceError(f"{path}: holds {len(found)} requests; a replay needs two at least.")
    start_s = found[0].arrival_s
    found = [one._replace(arrival_s=one.arrival_s - start_s, number=n) for n, one in enumerate(found)]
    if found[-1].arrival_s <= 0:
        raise TraceError(f"{path}: all requests have the same time; a replay needs a span of time.")
    return Workload(name, found, tick_s=_tick_s([one.arrival_s for one in found]))


def _tick_s(times: Sequence[float]) -> float:
    """How coarse a clock is: Mooncake's ticks every 3 s, and as it is a replay would measure bursts."""
    distinct = sorted(set(times))
    if len(times) < 2 * len(distinct):
        return 0.0
    return min(later - earlier for earlier, later in pairwise(distinct))


def _mooncake(path: Path, text: str) -> Iterator[Request]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield _mooncake_request(row, [int(block) for block in row["hash_ids"]])
        except (ValueError, TypeError, KeyError) as error:
            raise TraceError(
                f"{path}, line {number}: {error!r}. Each line needs `timestamp` (ms), `input_length`, "
                "`output_length` and `hash_ids`, as in Mooncake's traces."
            ) from error


def _mooncake_runs(path: Path, rows: csv.DictReader[str]) -> Iterator[Request]:
    for number, row in enumerate(rows, 2):
        try:
            blocks: list[int] = []
            for run in row["hash_runs"].split():
                first, _, last = run.partition("-")
                blocks.extend(range(int(first), int(last or first) + 1))
            yield _mooncake_request(row, blocks)
        except (ValueError, TypeError, AttributeError) as error:
            raise TraceError(
                f"{path}, line {number}: {error}. Each row needs three whole numbers and runs of hashes "
                "such as `0 14-27`."
            ) from error


def _mooncake_request(row: Mapping[str, str], blocks: Sequence[int]) -> Request:
    prompt = int(row["input_length"])
    whole = tuple(blocks[: prompt // MOONCAKE_BLOCK_TOKENS])
    return _checked(Request(int(row["timestamp"]) / 1000, prompt, max(1, int(row["output_length"])), whole))


def _azure(path: Path, rows: csv.DictReader[str]) -> Iterator[Request]:
    for number, row in enumerate(rows, 2):
        try:
            at_s = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()  # 7 digits: one too many
            prompt, output = int(row["ContextTokens"]), max(1, int(row["GeneratedTokens"]))
            yield _checked(Request(at_s, prompt, output))
        except (ValueError, TypeError) as error:
            raise TraceError(
                f"{path}, line {number}: {error}. Each row needs a time and two whole numbers."
            ) from error


def _checked(request: Request) -> Request:
    if request.prompt_tokens < 1 or request.arrival_s < 0:
        raise ValueError("a prompt has one token at least, and a time is not below 0")
    return request

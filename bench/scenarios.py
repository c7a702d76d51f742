"""What is asked of every subject, and which figures come of it.

A figure is None where it has no meaning (a direct call has no CPU of its own). Every scenario checks
counts: an answer with the wrong status or a stream with a token missing is a failure, and failures are
told.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import load
from bench.build import BenchError
from bench.load import Target
from bench.processes import Cores, rss_mb
from bench.stub import Stub

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how much; `quick` for a look, not for a figure."""

    measure_s: float = 6.0
    warm_s: float = 2.0
    many: int = 2000

    @classmethod
    def quick(cls) -> Scale:
        return cls(measure_s=2.0, warm_s=0.7, many=500)


@dataclass(frozen=True, slots=True)
class Setting:
    """One running subject and the stub behind it."""

    cores: Cores
    stub: Stub
    target: Target
    """With the stub among those beside it."""
    scale: Scale
    answer_tokens: int
    """Of a plain answer: any number costs the OpenAI stub the same; Triton is asked for one."""
    failures: list[str] = field(default_factory=list)
    other_cores: list[float] = field(default_factory=list)

    def load(self, mode: load.Mode, tokens: int, *options: object) -> dict[str, Any]:
        """One run of the load generator; notes failures and what else kept the machine busy."""
        result = load.run(self.cores.load, self.target, mode, tokens, *options)
        self.other_cores.append(result["other_cores"])
        failed = result["failed"]
        if any(failed[kind] for kind in ("status", "connection", "short", "unfinished")):
            self.failures.append(f"{mode}: {failed}")
        return result


def warm(setting: Setting) -> None:
    """Pay what only first requests cost: lazy imports, pools, caches."""
    setting.stub.pace(interval_us=1000)
    load.run(
        setting.cores.load, setting.target, "requests", setting.answer_tokens, "-c", 64, "-w", 0, "-d", 1.5
    )
    load.run(setting.cores.load, setting.target, "streams", 10, "-c", 16, "--rounds", 3)


def requests(setting: Setting) -> Figures:
    """64 keep-alive connections, as fast as answers come."""
    scale = setting.scale
    result = setting.load(
        "requests", setting.answer_tokens, "-c", 64, "-w", scale.warm_s, "-d", scale.measure_s
    )
    return {
        "requests_per_s": result["requests_per_s"],
        "requests_per_cpu_s": _per_cpu_s(result["answers"], result),
        "requests_p99_ms": result["latency_ms"]["p99"] if result["latency_ms"] else None,
    }


def rate(setting: Setting) -> Figures:
    """200 requests a second, whatever the answers do; latency counts from the scheduled time."""
    scale = setting.scale
    options = ("-c", 256, "-r", 200, "-w", scale.warm_s / 2, "-d", scale.measure_s)
    latency = setting.load("rate", setting.answer_tokens, *options)["latency_ms"]
    return {"rate_p50_ms": latency["p50"], "rate_p99_ms": latency["p99"]} if latency else {}


def streams(setting: Setting) -> Figures:
    """256 streams of 100 tokens at 20 ms each: 12,800 tokens a second offered."""
    setting.stub.pace(interval_us=20_000)
    options = ("-c", 256, "--ramp", 2, "-w", 2 + setting.scale.warm_s, "-d", setting.scale.measure_s)
    return _stream_figures("streams", setting.load("streams", 100, *options))


def saturated(setting: Setting) -> Figures:
    """256 streams of 200 tokens at 5 ms each: 51,200 tokens a second offered."""
    setting.stub.pace(interval_us=5_000)
    options = ("-c", 256, "--ramp", 1, "-w", 1 + setting.scale.warm_s, "-d", setting.scale.measure_s)
    return _stream_figures("saturated", setting.load("streams", 200, *options))


def many(setting: Setting) -> Figures:
    """Thousands of open streams of 20 slow tokens: first tokens, and memory while all are open."""
    count, ramp_s = setting.scale.many, setting.scale.many / 500
    setting.stub.pace(interval_us=400_000)
    before_mb = rss_mb(setting.target.pids)
    options = ("-c", count, "--rounds", 1, "--ramp", ramp_s, "--timeout", 90)
    with subprocess.Popen(
        ["taskset", "-c", str(setting.cores.load), *load.command(setting.target, "streams", 20, *options)],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        open_mb = _peak_rss_mb(setting, count, child)
        output, _ = child.communicate(timeout=120)
    result = load.parsed(output)
    if any(result["failed"][kind] for kind in ("status", "connection", "short", "unfinished")):
        setting.failures.append(f"many: {result['failed']}")
    first = result["ttft_ms"] or {}
    return {
        "many_ttft_p50_ms": first.get("p50"),
        "many_ttft_p99_ms": first.get("p99"),
        "mb_per_1000_streams": (open_mb - before_mb) / count * 1000
        if setting.target.pids and open_mb
        else None,
    }


def _peak_rss_mb(setting: Setting, count: int, child: subprocess.Popen[str]) -> float:
    """Memory of the subject once `count` streams are open at the stub; 0 when they never all are."""
    while child.poll() is None:
        if setting.stub.counters()["active"] >= count:
            return rss_mb(setting.target.pids)
        time.sleep(0.1)
    return 0.0


def cancel(setting: Setting) -> Figures:
    """50 clients vanish in mid-stream: how long until the model server sees the last of them gone."""
    setting.stub.pace(interval_us=20_000)
    left = setting.load("leave", 2000, "-c", 50, "--timeout", 20)
    try:
        seen = setting.stub.wait_for_active(0, timeout_s=12)
    except BenchError as error:
        setting.failures.append(f"cancel: {error}")
        return {"cancel_ms": None}
    return {"cancel_ms": max(0.0, (seen["last_end_ns"] - left["closed_at_ns"]) / 1e6)}


SCENARIOS: dict[str, Callable[[Setting], Figures]] = {
    "many": many,  # first: later ones leave a larger heap behind
    "requests": requests,
    "rate": rate,
    "streams": streams,
    "saturated": saturated,
    "cancel": cancel,
}


def _per_cpu_s(count: float, result: dict[str, Any]) -> float | None:
    used = result["cpu_s"].get("subject")
    return count / used if used else None


def _stream_figures(name: str, result: dict[str, Any]) -> Figures:
    tokens_per_cpu_s = _per_cpu_s(result["tokens"], result)
    return {
        f"{name}_tokens_per_s": result["tokens_per_s"],
        f"{name}_tokens_per_cpu_s": tokens_per_cpu_s,
        f"{name}_cpu_s_per_million": 1e6 / tokens_per_cpu_s if tokens_per_cpu_s else None,
        f"{name}_ttft_p99_ms": result["ttft_ms"]["p99"] if result["ttft_ms"] else None,
        f"{name}_transit_p50_ms": result["transit_ms"]["p50"] if result["transit_ms"] else None,
        f"{name}_transit_p99_ms": result["transit_ms"]["p99"] if result["transit_ms"] else None,
    }

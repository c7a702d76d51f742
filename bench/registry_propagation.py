"""How long a change of the registry takes to be seen by every gateway worker.

`python -m bench.registry_propagation --redis-url URL --watchers 4 --changes 300`: as many processes as
gateways have workers, each with a watcher; one model is changed again and again through the store. Reported
is the time from the store's answer (and from the call) until the *last* watcher shows it.
The registry used is one of its own and deleted at the end. Ends with `RESULT {json}`; "ok": p99 < 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import secrets
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Model
from model_registry.keys import Keys
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher

BAR_P99_MS = 100.0
START_TIMEOUT_S = 30.0
SEEN_TIMEOUT_S = 5.0
PAUSE_S = 0.01
"""Between changes, so that each is pushed on its own."""


def watch(config: RegistryConfig, pipe: Connection) -> None:
    """One process: report each version with the monotonic time (ns, one clock for all) at which it shows."""
    asyncio.run(_watch(config, pipe))


async def _watch(config: RegistryConfig, pipe: Connection) -> None:
    def seen(snapshot: Snapshot) -> None:
        pipe.send((snapshot.version, time.monotonic_ns()))

    redis = connect(config)
    async with Watcher(RegistryStore.of(redis, config), on_change=seen, config=config) as watcher:
        pipe.send((watcher.current.version, time.monotonic_ns()))
        await asyncio.to_thread(pipe.recv)
    await redis.aclose()


async def measure(config: RegistryConfig, pipes: list[Connection], changes: int) -> list[tuple[float, float]]:
    """Milliseconds (after the answer, after the call) per change, until every watcher shows it."""
    redis = connect(config)
    store = RegistryStore.of(redis, config)
    times = []
    for n in range(changes):
        called_ns = time.monotonic_ns()
        version = await store.apply([Model(name="measured", context_length=n + 1)])
        answered_ns = time.monotonic_ns()
        seen_ns = max(await asyncio.to_thread(_shown, pipes, version))
        times.append((max(0.0, (seen_ns - answered_ns) / 1e6), (seen_ns - called_ns) / 1e6))
        await asyncio.sleep(PAUSE_S)
    await redis.delete(*Keys(config.name).all)
    await redis.aclose()
    return times


def _shown(pipes: list[Connection], version: int) -> list[int]:
    return [_shown_by(pipe, version) for pipe in pipes]


def _shown_by(pipe: Connection, version: int) -> int:
    while pipe.poll(SEEN_TIMEOUT_S):
        shown, at_ns = pipe.recv()
        if shown >= version:
            return int(at_ns)
    raise TimeoutError(f"a watcher did not show version {version} within {SEEN_TIMEOUT_S:g} s")


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(redis_url: str, watchers: int, changes: int) -> dict[str, Any]:
    """The whole measurement; the processes it starts have ended when it returns."""
    config = RegistryConfig(redis_url=redis_url, name=f"bench-{secrets.token_hex(4)}")
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(watchers)]
    processes = [context.Process(target=watch, args=(config, theirs)) for _, theirs in pairs]
    pipes = [ours for ours, _ in pairs]
    try:
        for process in processes:
            process.start()
        for pipe in pipes:
            if not pipe.poll(START_TIMEOUT_S):
                raise TimeoutError(f"a watcher did not start within {START_TIMEOUT_S:g} s")
        times = asyncio.run(measure(config, pipes, changes))
        for pipe in pipes:
            pipe.send("end")
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    after_answer, after_call = [a for a, _ in times], [c for _, c in times]
    figures = {
        "p50_ms": round(percentile(after_answer, 0.50), 2),
        "p99_ms": round(percentile(after_answer, 0.99), 2),
        "max_ms": round(max(after_answer), 2),
        "from_call_p50_ms": round(percentile(after_call, 0.50), 2),
        "from_call_p99_ms": round(percentile(after_call, 0.99), 2),
    }
    ok = figures["p99_ms"] < BAR_P99_MS
    setting = {"watchers": watchers, "changes": changes, "cores": os.cpu_count()}
    return {"name": "registry_propagation", **setting, **figures, "bar_p99_ms": BAR_P99_MS, "ok": ok}


def main() -> int:
    """Exit status 1 when the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redis-url", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--watchers", type=int, default=4)
    parser.add_argument("--changes", type=int, default=300)
    options = parser.parse_args()
    result = run(options.redis_url, options.watchers, options.changes)
    print(f"until every one of {options.watchers} watchers shows a change, {options.changes} changes:")
    for since, prefix in (("the store's answer", ""), ("the call", "from_call_")):
        p50, p99 = result[f"{prefix}p50_ms"], result[f"{prefix}p99_ms"]
        print(f"  after {since:<20} p50 {p50} ms   p99 {p99} ms")
    print("RESULT " + json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

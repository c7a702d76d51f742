"""What one routing decision costs: `python -m bench.decisions [--quick]`.

64 endpoints that serve, caches full of conversations, and new prompts of 128k tokens: hash the prompt, look
up what each endpoint has of it, rate them by the default policy, pick one, and note that it goes there. The
gateway's own code, on one core. Judged: p50 and p99 of a decision on an array of token ids, in CPU time, to
which what else runs on the machine adds little; the time by the clock is shown beside it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import campaign
from model_registry.entities import Endpoint
from model_registry.knobs import knobs_of
from router.block_hashes import block_hashes, compact
from router.config import RouterConfig
from router.deciding import Deciding
from router.pick import pick
from router.view import Ask

MODEL = "house"
ENDPOINTS = 64
PROMPT_TOKENS = 131_072
BLOCK_TOKENS = 64
CONVERSATIONS = 1_024
P50_BAR_US, P99_BAR_US = 300.0, 1500.0

Ids = NDArray[np.uint32]


class House:
    """One gateway's memory after a while of conversations, all of which begin with one system prompt."""

    def __init__(self, conversations: int) -> None:
        self.dice = Random(1)
        self.numbers = np.random.default_rng(1)
        self.deciding = Deciding(RouterConfig())
        self.endpoints = [_endpoint(n) for n in range(ENDPOINTS)]
        self.now_s = 0.0
        self.system = self._ids(2_000)
        self.prompts: list[Ids] = []
        policy = self.deciding.policy(MODEL, "balanced", knobs_of("balanced"))
        for _ in range(conversations):
            self.prompts.append(np.concatenate([self.system, self._ids(self.dice.randrange(500, 60_000))]))
            endpoint, ask = self.dice.choice(self.endpoints), self.ask(self.prompts[-1])
            self.deciding.dispatch(MODEL, endpoint, ask, policy, self.now_s)

    def next_prompt(self) -> Ids:
        """A conversation goes on, and has by now the length that is measured; loads are others by now."""
        for endpoint in self.endpoints:
            load = self.deciding.ledger.of(endpoint.name)
            load.requests, load.prefill_tokens = self.dice.randrange(32, 64), self.dice.randrange(50_000)
            load.decoding, load.decode_prompt_tokens, load.decode_output_tokens = 32, 100_000, 6_000
        begun = self.prompts[self.dice.randrange(len(self.prompts))]
        return np.concatenate([begun, self._ids(PROMPT_TOKENS - len(begun))])

    def ask(self, ids: Ids) -> Ask:
        """The hashing."""
        return Ask(len(ids), 200, block_hashes(ids, BLOCK_TOKENS), "tenant")

    def decide(self, ask: Ask) -> str:
        """The rest: look up, rate, pick, note."""
        self.now_s += 0.01
        deciding, knobs = self.deciding, knobs_of("balanced")
        policy = deciding.policy(MODEL, "balanced", knobs)
        choices = deciding.candidates(MODEL, self.endpoints, None, ask, self.now_s)
        endpoint = pick("balanced", knobs, policy, ask, choices, set(), self.now_s).endpoint
        assert endpoint is not None
        deciding.dispatch(MODEL, endpoint, ask, policy, self.now_s)
        return endpoint.name

    def _ids(self, count: int) -> Ids:
        return self.numbers.integers(0, 150_000, count).astype(np.uint32)


def _endpoint(n: int) -> Endpoint:
    return Endpoint(
        name=f"house@10.0.0.{n}:8000",
        deployment=MODEL,
        model=MODEL,
        profile="balanced",
        lane="tensorrt_llm",
        target="tensorrt_llm",
        http=f"http://10.0.0.{n}:8000",
        state="ready",
        server_schema={"tokens_per_block": BLOCK_TOKENS},
    )


def timed(make: Callable[[], Any], run: Callable[[Any], object], times: int) -> list[tuple[float, float]]:
    """Microseconds of CPU and of the clock that each `run` took on what `make` made, which is not timed."""
    took = []
    for _ in range(times):
        made = make()
        began, cpu_began = time.perf_counter_ns(), time.thread_time_ns()
        run(made)
        cpu = time.thread_time_ns() - cpu_began
        took.append((cpu / 1e3, (time.perf_counter_ns() - began) / 1e3))
    return took


def figures(took: list[tuple[float, float]]) -> dict[str, float]:
    """Percentiles by name."""
    found = {}
    for name, values in zip(("cpu", "clock"), zip(*took, strict=True), strict=True):
        ordered = sorted(values)
        for percent in (50, 99):
            found[f"{name}_p{percent}_us"] = round(ordered[len(ordered) * percent // 100], 1)
    return found


def main() -> int:
    parser = campaign.parser(__doc__, "python -m bench.decisions --quick")
    parser.add_argument("--quick", action="store_true", help="fewer decisions: a few seconds in all")
    options = parser.parse_args()
    return campaign.concluded(lambda: measured(quick=options.quick))


def measured(*, quick: bool) -> dict[str, Any]:
    """The figures of each row, printed too; `ok`: those of the whole decision are within their bars."""
    house = House(CONVERSATIONS // 8 if quick else CONVERSATIONS)
    times = 200 if quick else 2_000
    gc.collect()
    gc.freeze()  # what the house remembers is no garbage, and is not searched for any

    def short() -> Ids:
        return house.next_prompt()[:1024]

    def whole(ids: Any) -> str:
        return house.decide(house.ask(ids))

    rows: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
        "whole decision": (house.next_prompt, whole),
        "of that, the hashing": (house.next_prompt, house.ask),
        "whole decision, prompt of 1k": (short, whole),
        "before, where ids come as a list: an array": (lambda: house.next_prompt().tolist(), compact),
    }
    table = Table(title=f"{ENDPOINTS} endpoints, prompts of {PROMPT_TOKENS:,} tokens", title_justify="left")
    for column in ("µs", "CPU p50", "CPU p99", "clock p50", "clock p99"):
        table.add_column(column)
    results = {}
    for name, (make, run) in rows.items():
        results[name] = figures(timed(make, run, times))
        table.add_row(name, *(f"{figure:,.0f}" for figure in results[name].values()))
    Console().print(table)
    judged = results["whole decision"]
    met = judged["cpu_p50_us"] <= P50_BAR_US and judged["cpu_p99_us"] <= P99_BAR_US
    return {"ok": met, "decisions": results}


if __name__ == "__main__":
    sys.exit(main())

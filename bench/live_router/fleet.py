"""Fleet: Redis, a real Triton with four engines, the controller, and three gateways that share the Redis.

Every process is a session of its own and is ended by its pid when the block ends, however it ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.build import BenchError
from bench.live_router.engines import (
    BLOCK_TOKENS,
    CARD,
    CONTEXT_LENGTH,
    ENGINES,
    TOKENIZER,
    engine_name,
    fault_file,
    repository,
)
from bench.processes import cpu_s, tree
from bench.stack import Manifest, Stack, running
from enginehouse.local.model_servers import weights_folder
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment

GATEWAYS = 3
MODEL = "m"
TENANTS = ("house", "victim", "flood")


class Fleet(Stack):
    """What runs, and the calls that change it."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        super().__init__(folder, session)
        self.triton: TritonProcess | None = None

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each kind of process has used until now."""
        used: dict[str, float] = {}
        for name, service in self.services.items():
            if service.pid is not None:
                kind = name.rstrip("-0123456789")
                used[kind] = used.get(kind, 0.0) + cpu_s(tree(service.pid))
        return used

    async def serve(self, profile: Mapping[str, Any], slots: int = CARD.slots) -> None:
        """Give the endpoints a profile and a number of slots; returns when every gateway has taken them."""
        await self.apply(
            {"kind": "Profile", "metadata": {"name": "balanced"}, "spec": dict(profile)},
            *(self.deployment(number, slots) for number in range(ENGINES)),
        )

        def taken(shown: dict[str, Any]) -> bool:
            ready = [one for one in shown["endpoints"] if one["state"] == "ready"]
            return len(ready) == ENGINES and all(one["max_concurrency"] == slots for one in ready)

        await self.until(taken, f"{ENGINES} endpoints of {slots} slots")

    def deployment(self, number: int, slots: int, profile: str = "balanced") -> Manifest:
        """One engine's."""
        assert self.triton is not None
        server = {
            "http": self.triton.http_url,
            "grpc": self.triton.grpc_url,
            "metrics": self.triton.metrics_url,
        }
        spec = {"model": MODEL, "profile": profile, "target": engine_name(number), "servers": [server]}
        return {
            "kind": "Deployment",
            "metadata": {"name": f"e{number}"},
            "spec": {**spec, "max_concurrency": slots, "tokens_per_block": BLOCK_TOKENS},
        }

    def fault(self, engine: int, fault: str | None) -> None:
        """Switch an engine's fault on or off (`emulator.engine.faults`)."""
        draft = self.folder / "fault.tmp"
        draft.write_text(json.dumps({"fault": fault}))
        draft.replace(fault_file(self.folder, engine))

    async def engine_requests(self) -> dict[str, int]:
        """What each engine says of itself: requests that it has accepted and not ended."""
        assert self.triton is not None
        async with self.session.get(self.triton.metrics_url) as answer:
            lines = (await answer.text()).splitlines()
        found = {}
        for line in lines:
            if line.startswith("nv_trt_llm_request_metrics{") and 'request_type="active"' in line:
                found[line.split('model="')[1].split('"')[0]] = int(float(line.rsplit(" ", 1)[1]))
        if len(found) != ENGINES:
            raise BenchError(f"the metrics of Triton tell of {len(found)} engines, not of {ENGINES}")
        return found

    def times_left(self) -> int:
        """How often gateways have left an endpoint alone, by their logs."""
        logs = (self.folder / f"gateway-{number}.log" for number in range(GATEWAYS))
        return sum(log.read_text(errors="replace").count("endpoint left alone") for log in logs)


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Everything, ready, until the block ends. Raises CommandError or BenchError where it cannot start."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        found = Fleet(folder, session)
        found.triton = TritonProcess(
            "triton",
            await ensure_environment(),
            folder / "repository",
            folder / "triton.log",
            load=await asyncio.to_thread(repository, folder),
        )
        environment = {"ENGINEHOUSE_ROUTER__CACHE_TOKENS": str(CARD.kv_tokens)}
        async with running(
            found, gateways=GATEWAYS, tenants=TENANTS, environment=environment, beside=[found.triton]
        ):
            model = {"context_length": CONTEXT_LENGTH, "tokenizer": str(weights_folder(TOKENIZER))}
            await found.apply({"kind": "Model", "metadata": {"name": MODEL}, "spec": model})
            await found.serve({})
            yield found

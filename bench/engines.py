"""`make engines`: from a checkpoint to a promoted engine on a real Triton, while clients stream.

Everything is done by the commands that an operator would type. The engines are emulated: the steps are run by
doubles of TensorRT-LLM's programs, and CPU engines serve what these leave. The last line is `RESULT {json}`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench import campaign
from bench.build import BenchError
from bench.stack import Stack, running
from enginehouse.api import AdminClient
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import TritonEnvironment, ensure_environment

MODEL = "house"
CLIENTS = 2
PROMOTED_WITHIN_S = 240.0
_PHASE_POLL_S = 0.1
_QUESTIONS = (
    "What is an engine house?",
    "Good morning!",
    "What does a governor do?",
    "Where does the water come from?",
    "How many wagons are in the yard?",
    "What is the capital of France?",
)
LIMITS = {
    # Two cores run two servers, the gateway and these clients: times differ by chance alone.
    "pace": {"harmless": 1.0, "harmful": 4.0},
    "ttft": {"harmless": 1.0, "harmful": 4.0},
    # Eight-bit weights of so small a model change some answers, and that is no fault of the path.
    "answers": {"harmless": 0.5, "harmful": 0.95},
    "finish": {"harmless": 0.2, "harmful": 0.6},
    "length": {"harmless": 0.6, "harmful": 2.0},
}
ROLLOUT = {
    "shadow": {"min_samples": 20, "min_s": 1},
    "steps": [
        {"share": 0.1, "min_samples": 5, "min_s": 1},
        {"share": 0.5, "min_samples": 10, "min_s": 1},
    ],
    "limits": LIMITS,
}


class Promotion:
    """One run: what each step took, and what clients saw meanwhile."""

    def __init__(self, folder: Path, stack: Stack, triton: TritonEnvironment) -> None:
        self.folder = folder
        self.stack = stack
        self.took_s: dict[str, float] = {}
        self.endings: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.reason = ""
        """What the rollout said last."""
        self.engines: dict[str, str] = {}
        """Names by deployment."""
        self._triton = triton
        self._servers: dict[str, TritonProcess] = {}

    async def command(self, what: str, *words: str) -> str:
        """Run `enginehouse WORDS`, as step `what`; its stdout. Raises BenchError with its stderr."""
        return await self.timed(what, sys.executable, "-m", "enginehouse", *words)

    async def timed(self, what: str, *argv: str) -> str:
        """Run a program as step `what`; its stdout. Raises BenchError with its stderr."""
        began_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        self._took(what, began_s)
        if process.returncode != 0:
            raise BenchError(
                f"{what}: {' '.join(argv[2:])} exited with {process.returncode}\n"
                f"{out.decode()}\n{errors.decode()}"
            )
        return out.decode()

    def _environment(self) -> dict[str, str]:
        key = self.stack.keys["admin"]
        return {
            **os.environ,
            "COLUMNS": "160",
            "ENGINEHOUSE_STATE_DIR": str(self.folder / "state"),
            "ENGINEHOUSE_URL": self.stack.gateways[0],
            "ENGINEHOUSE_API_KEY": key,
            "ENGINEHOUSE_ADMIN_KEY": key,
        }

    def _took(self, what: str, began_s: float) -> None:
        self.took_s[what] = round(time.monotonic() - began_s, 2)
        print(f"{what:<34} {self.took_s[what]:7.2f} s", flush=True)

    # -- the path -----------------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """A small one in Hugging Face's layout."""
        out = str(self.folder / "checkpoint")
        await self.timed("checkpoint", sys.executable, "-m", "emulator.train.hf_checkpoint", "--out", out)

    async def engine(self, deployment: str, **fields: Any) -> None:
        """Plan, build, publish, fetch, load, deploy and preflight one engine."""
        spec = self.folder / f"{deployment}.yaml"
        document = {
            "kind": "EngineSpec",
            "name": f"{MODEL}-{deployment}",
            "model": MODEL,
            "checkpoint": str(self.folder / "checkpoint"),
            "gpu_class": "h100-sxm",
            "profile": "latency",
            "max_batch_size": 8,
            "max_seq_len": 1024,
            "workload": {"input_tokens": 256, "output_tokens": 128},
            **fields,
        }
        spec.write_text(yaml.safe_dump(document, sort_keys=False))
        planned = self.folder / f"{deployment}-planned.yaml"
        await self.command(f"{deployment}: plan", "plan", "-f", str(spec), "--out", str(planned))
        built = await self.command(
            f"{deployment}: quantize, compile, publish",
            *("build", "-f", str(planned), "--runtime", "emulated", "--store", str(self.folder / "store")),
            *("--cache", str(self.folder / "cache"), "--local"),
        )
        name = self.engines[deployment] = yaml.safe_load(built)["metadata"]["name"]
        manifest = self.folder / f"{deployment}-engine.yaml"
        manifest.write_text(built)
        await self.command(f"{deployment}: register", "apply", "-f", str(manifest))
        place = self.folder / "served" / deployment
        await self.command(
            f"{deployment}: fetch",
            *("engines", "fetch", name, str(place), "--store", str(self.folder / "store")),
        )
        began_s = time.monotonic()
        server = self._servers[deployment] = await self._server(deployment, place)
        self._took(f"{deployment}: real Triton loads it", began_s)
        await self.stack.apply(_deployment(deployment, name, server))
        await self.command(f"{deployment}: preflight", "preflight", name, "--server", server.http_url)
        began_s = time.monotonic()
        await self.stack.until(
            lambda shown: any(
                one["deployment"] == deployment and one["state"] == "ready" for one in shown["endpoints"]
            ),
            f"an endpoint of {deployment}",
        )
        self._took(f"{deployment}: routable", began_s)

    async def _server(self, name: str, place: Path) -> TritonProcess:
        repository = place / "serve" / "repository"
        server = TritonProcess(
            name,
            self._triton,
            repository,
            self.folder / f"triton-{name}.log",
            load=sorted(path.name for path in repository.iterdir()),
        )
        await self.stack.start(server)
        return server

    async def roll_out(self) -> str:
        """Start it and wait for its end; the final phase. Times of the phases are steps of the run."""
        rollout = self.folder / "rollout.yaml"
        document = {"kind": "Rollout", "name": MODEL, "model": MODEL, "stable": "stable"}
        rollout.write_text(yaml.safe_dump({**document, "candidate": "candidate", **ROLLOUT}))
        await self.command("rollout: start", "apply", "-f", str(rollout))
        deadline_s = began_s = time.monotonic()
        deadline_s += PROMOTED_WITHIN_S
        phase = "pending"
        while phase not in {"promoted", "rolled_back", "aborted"}:
            if time.monotonic() > deadline_s:
                raise BenchError(f"the rollout was still in phase {phase} after {PROMOTED_WITHIN_S:g} s")
            await asyncio.sleep(_PHASE_POLL_S)
            found = await self._status()
            if found is not None and found["phase"] != phase:
                self._took(f"rollout: {phase}", began_s)
                phase, began_s = found["phase"], time.monotonic()
                self.reason = found["reason"]
        return phase

    async def _status(self) -> dict[str, Any] | None:
        async with AdminClient(self.stack.admin()) as api:
            items = (await api.get("objects/RolloutStatus"))["items"]
        return next((one for one in items if one["name"] == MODEL), None)

    # -- clients ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator[None]:
        """Clients ask without a pause until the block ends; every ending is counted."""
        stopped = asyncio.Event()

        async def client(number: int) -> None:
            turn = number
            while not stopped.is_set():
                await self._ask(_QUESTIONS[turn % len(_QUESTIONS)])
                turn += CLIENTS

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))
            try:
                yield
            finally:
                stopped.set()

    async def _ask(self, question: str) -> None:
        body = {"model": MODEL, "stream": True, "temperature": 0, "max_tokens": 32}
        headers = {"Authorization": f"Bearer {self.stack.keys['house']}", "x-enginehouse-explain": "1"}
        url = f"{self.stack.gateways[0]}/v1/chat/completions"
        try:
            async with self.stack.session.post(
                url, json={**body, "messages": [{"role": "user", "content": question}]}, headers=headers
            ) as response:
                text = await response.text()
                whole = response.status == 200 and text.endswith("data: [DONE]\n\n") and "error" not in text
                self.endings["whole" if whole else f"{response.status}: {text[-300:]}"] += 1
                decision = response.headers.get("x-enginehouse-decision", "")
                self.served["candidate" if "candidate@" in decision else "stable"] += 1
        except aiohttp.ClientError as error:
            self.endings[repr(error)] += 1

    def result(self, phase: str) -> dict[str, Any]:
        """The figures."""
        failed = {ending: count for ending, count in self.endings.items() if ending != "whole"}
        return {
            "steps_s": self.took_s,
            "engines": self.engines,
            "streams": self.endings["whole"],
            "served_by_candidate": self.served["candidate"],
            "failed": failed,
            "rollout": phase,
            "reason": self.reason,
            "ok": phase == "promoted" and not failed and self.served["candidate"] > 0,
        }


def _deployment(name: str, engine: str, server: TritonProcess) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "model": MODEL,
            "profile": "latency",
            "target": "tensorrt_llm",
            "engine": engine,
            "weight": 1 if name == "stable" else 0,
            "servers": [{"http": server.http_url, "grpc": server.grpc_url, "metrics": server.metrics_url}],
        },
    }


async def run(folder: Path) -> dict[str, Any]:
    """The whole path in `folder`. Raises BenchError or CommandError where it cannot be gone."""
    timeout = aiohttp.ClientTimeout(total=60)
    began_s = time.monotonic()
    triton = await ensure_environment()
    async with aiohttp.ClientSession(timeout=timeout) as session:
        stack = Stack(folder, session)
        async with running(stack, environment={"ENGINEHOUSE_CONTROLLER__INTERVAL_S": "0.3"}):
            path = Promotion(folder, stack, triton)
            await path.checkpoint()
            model = {
                "context_length": 1024,
                "tokenizer": str(folder / "checkpoint"),
                "default_profile": "latency",
            }
            await stack.apply({"kind": "Model", "metadata": {"name": MODEL}, "spec": model})
            await path.engine("stable", precision="bf16", kv_cache="auto")
            async with path.streaming():
                await path.engine("candidate", precision="fp8", kv_cache="fp8")
                phase = await path.roll_out()
                await asyncio.sleep(1.0)  # what the promoted engine answers counts, too
            result = path.result(phase)
    return {**result, "seconds": round(time.monotonic() - began_s, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print `RESULT {json}`; exit status 0 where the engine was promoted and no stream failed."""
    parser = campaign.parser(__doc__, "python -m bench.engines --keep ./engines-run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder and leave it there")
    options = parser.parse_args(arguments)
    folder = (options.keep or Path(tempfile.mkdtemp(prefix="enginehouse-engines-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    status = campaign.concluded(run(folder))
    if status == campaign.NOT_MEASURED:
        print(f"logs: {folder}", file=sys.stderr)
    elif options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())

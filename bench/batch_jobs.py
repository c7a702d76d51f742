"""Are rows of a batch job recorded exactly once while gateways are killed? (`python -m bench.batch_jobs`)

A gateway of several workers runs one job against a model server that counts what it is asked. Meanwhile
random workers get SIGKILL, once their supervisor too, and interactive requests come in. In the end every row
must be in the outputs once; how often a row was run more than once is counted, not forbidden: a row whose
worker died before its result was recorded is run again. Ends with `RESULT {json}`; exit code 0: all is well.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench import campaign
from bench.build import BenchError
from bench.gateway_under_test import free_port
from bench.processes import tree
from bench.tally import LIVE, MODEL, Tally
from enginehouse.local.redis import find_redis
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.errors import RegistryUnavailableError
from model_registry.snapshot import Stored
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import new_key

SLOTS, SHARE = 64, 0.5
LEASE_S = 2.0
DELAY_S = 0.05
DEADLINE_S = 900.0
AWAY_S = 180.0
"""How long the gateway may be away while its workers are killed; a busy machine starts new ones slowly."""
KILL_EVERY_S = (1.0, 4.0)
LIVE_EVERY_S = 0.05
_AWAY = (aiohttp.ClientError, ConnectionError, TimeoutError)


@dataclass
class Seen:
    """What the campaign did and saw."""

    workers_killed: int = 0
    supervisors_killed: int = 0
    live_answered: int = 0
    live_refused: Counter[str] = field(default_factory=Counter)


class Gateway:
    """The gateway under test; the campaign talks to it as a client does."""

    def __init__(self, folder: Path, redis_url: str, workers: int, key: str) -> None:
        self._folder = folder
        self._workers = workers
        self.port = free_port()
        chosen = {
            "REGISTRY__REDIS_URL": redis_url,
            "GATEWAY__PORT": str(self.port),
            "GATEWAY__WORKERS": str(workers),
            "BATCH_JOBS__STORE_PATH": str(folder / "store"),
            "BATCH_JOBS__SHARE": str(SHARE),
            "BATCH_JOBS__LEASE_S": str(LEASE_S),
            "BATCH_JOBS__POLL_S": "0.2",
            "BATCH_JOBS__MIN_FREE_BYTES": "0",
        }
        self._environment = {**os.environ, **{f"ENGINEHOUSE_{name}": value for name, value in chosen.items()}}
        self._process: subprocess.Popen[bytes] | None = None
        self.session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(total=30),
        )

    async def start(self) -> None:
        with (self._folder / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [sys.executable, "-m", "enginehouse", "gateway"],
                env=self._environment,
                stderr=log,
                stdout=log,
            )
        async with asyncio.timeout(AWAY_S):
            while not await self.serves():  # noqa: ASYNC110 - another process has no event to wait for
                await asyncio.sleep(0.1)

    async def serves(self) -> bool:
        with suppress(*_AWAY):
            async with self.session.get("/v1/models") as answer:
                return answer.status == 200
        return False

    def pids(self) -> list[int]:
        """The supervisor and its workers."""
        return [] if self._process is None else tree(self._process.pid)

    async def kill_worker(self) -> None:
        """Whichever takes a new connection: a worker that is only starting has nothing to lose."""
        told = await self.ask("GET", "/admin/v1/snapshot", headers={"Connection": "close"})
        os.kill(told["pid"], signal.SIGKILL)

    async def kill_supervisor(self) -> None:
        """Its workers get SIGTERM by its death, and drain; a new gateway takes the port once they ended."""
        assert self._process is not None
        orphans = self.pids()[1:]
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        async with asyncio.timeout(AWAY_S):
            while any(map(_runs, orphans)):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that is answered in the end; whoever dies meanwhile is asked again."""
        async with asyncio.timeout(AWAY_S):
            while True:
                with suppress(*_AWAY):
                    async with self.session.request(method, path, **options) as answer:
                        if answer.status < 500:
                            answer.raise_for_status()
                            return await answer.json(content_type=None)
                await asyncio.sleep(0.1)

    async def lines(self, file_id: str | None) -> list[Any]:
        if file_id is None:
            return []
        async with self.session.get(f"/v1/files/{file_id}/content") as answer:
            answer.raise_for_status()
            return [json.loads(line) for line in (await answer.read()).splitlines()]

    async def close(self) -> None:
        await self.session.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, 60)
            except subprocess.TimeoutExpired:
                for pid in self.pids():
                    os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[str]:
    """A private Redis; its URL."""
    binary = find_redis()
    if binary is None:
        raise BenchError(
            "no redis-server found; `apt install redis-server` or `pip install 'enginehouse[local]'`"
        )
    port = free_port()
    command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - returns at once
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


async def register(redis_url: str, server: str) -> str:
    """One model at one endpoint, one tenant; its key."""
    key, digest = new_key()
    client = connect(RegistryConfig(redis_url=redis_url))
    store = RegistryStore(client)
    objects: list[Stored] = [
        Model(name=MODEL, context_length=4096),
        Deployment(name="d", model=MODEL, lane="openai-http", servers=(ServerRef(http=server),)),
        Tenant(name="bench"),
        ApiKey(name="bench", tenant="bench", sha256=digest, admin=True),
    ]
    endpoint = Endpoint(
        name="d@tally", deployment="d", model=MODEL, profile="balanced", lane="openai-http", target=MODEL,
        http=server, state="ready", max_concurrency=SLOTS,
    )  # fmt: skip
    try:
        async with asyncio.timeout(10):
            while True:
                with suppress(RegistryUnavailableError):
                    await store.apply(objects)
                    break
                await asyncio.sleep(0.05)
        await store.register_endpoint(endpoint, ttl_s=7200)
    finally:
        await client.aclose()
    return key


def input_file(rows: int) -> bytes:
    lines = []
    for number in range(rows):
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"row {number}"}]}
        row = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(row))
    return "\n".join(lines).encode()


async def start_job(gateway: Gateway, rows: int) -> str:
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", input_file(rows), filename="rows.jsonl")
    async with gateway.session.post("/v1/files", data=form) as answer:
        answer.raise_for_status()
        file_id = (await answer.json())["id"]
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    job = await gateway.ask("POST", "/v1/batches", json=asked)
    return str(job["id"])


async def kill_now_and_then(
    gateway: Gateway, job_id: str, rows: int, seen: Seen, choose: random.Random
) -> None:
    """Random workers, and their supervisor once, when half of the rows are recorded.

    Between two kills a fortieth of the rows is recorded: a machine that starts workers slowly gets there.
    """
    killed_at = 0
    while True:
        await asyncio.sleep(choose.uniform(*KILL_EVERY_S))
        done = (await gateway.ask("GET", f"/v1/batches/{job_id}"))["request_counts"]["completed"]
        if done < killed_at + rows // 40:
            continue
        killed_at = done
        if done >= rows // 2 and not seen.supervisors_killed:
            await gateway.kill_supervisor()
            seen.supervisors_killed += 1
            await gateway.start()
        else:
            await gateway.kill_worker()
            seen.workers_killed += 1


async def ask_live(gateway: Gateway, seen: Seen) -> None:
    """Interactive requests at a steady pace; one whose worker is killed fails, as it would for any client."""

    async def one(number: int) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"{LIVE} {number}"}]}
        try:
            async with gateway.session.post("/v1/chat/completions", json=body) as answer:
                await answer.read()
                if answer.status == 200:
                    seen.live_answered += 1
                else:
                    seen.live_refused[str(answer.status)] += 1
        except _AWAY:
            seen.live_refused["connection"] += 1

    number = 0
    async with asyncio.TaskGroup() as group:
        while True:
            number += 1
            group.create_task(one(number))
            await asyncio.sleep(LIVE_EVERY_S)


async def until_ended(gateway: Gateway, job_id: str) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            job = await gateway.ask("GET", f"/v1/batches/{job_id}")
            if job["status"] in {"completed", "failed", "expired", "cancelled"}:
                return job
            await asyncio.sleep(0.25)


async def run(rows: int, workers: int, kills: bool, seed: int) -> dict[str, Any]:
    """Run it; what came out."""
    seen, choose = Seen(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="enginehouse-batch-jobs-") as name:
        folder = Path(name)
        async with redis(folder) as redis_url, Tally(DELAY_S) as tally:
            gateway = Gateway(folder, redis_url, workers, await register(redis_url, tally.url))
            try:
                await gateway.start()
                job_id = await start_job(gateway, rows)
                began_s = time.monotonic()
                beside = [asyncio.create_task(ask_live(gateway, seen))]
                if kills:
                    killer = kill_now_and_then(gateway, job_id, rows, seen, choose)
                    beside.append(asyncio.create_task(killer))
                try:
                    job = await until_ended(gateway, job_id)
                finally:
                    for task in beside:
                        task.cancel()
                    await asyncio.gather(*beside, return_exceptions=True)
                took_s = time.monotonic() - began_s
                if not await gateway.serves():
                    await gateway.start()
                output = await gateway.lines(job["output_file_id"])
                errors = await gateway.lines(job["error_file_id"])
            finally:
                await gateway.close()
            left = [path.name for path in (folder / "store" / "jobs").iterdir()]
            told = judged(rows, workers, job, output, errors, tally, seen, took_s, left)
            return {**told, "seed": seed}


def judged(
    rows: int,
    workers: int,
    job: Any,
    output: Sequence[Any],
    errors: Sequence[Any],
    tally: Tally,
    seen: Seen,
    took_s: float,
    left: Sequence[str],
) -> dict[str, Any]:
    """The figures, and whether all is well."""
    expected = [f"r{number}" for number in range(rows)]
    recorded = Counter(line["custom_id"] for line in (*output, *errors))
    told = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in output
    }
    runs = {prompt: count for prompt, count in tally.asked.items() if not prompt.startswith(LIVE)}
    checks = {
        "completed": job["status"] == "completed",
        "every_row_once": recorded == Counter(expected),
        "in_order": [line["custom_id"] for line in output] == expected,
        "own_answers": all(told[f"r{n}"] == f"heard row {n}" for n in range(rows) if f"r{n}" in told),
        "counts": job["request_counts"] == {"total": rows, "completed": len(output), "failed": len(errors)},
        "every_row_run": len(runs) == rows,
        "within_the_share": tally.most_rows <= SLOTS * SHARE,
        "nothing_left": not left,
    }
    return {
        "ok": all(checks.values()),
        "checks": checks,
        "rows": rows,
        "workers": workers,
        "seconds": round(took_s, 1),
        "rows_per_s": round(rows / took_s, 1),
        "workers_killed": seen.workers_killed,
        "supervisors_killed": seen.supervisors_killed,
        "upstream_calls": sum(runs.values()),
        "run_again": sum(runs.values()) - rows,
        "most_runs_of_a_row": max(runs.values(), default=0),
        "most_rows_at_once": tally.most_rows,
        "rows_allowed_at_once": int(SLOTS * SHARE),
        "live_answered": seen.live_answered,
        "live_refused": dict(seen.live_refused),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = campaign.parser(__doc__, "python -m bench.batch_jobs --rows 2000")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-kills", action="store_true", help="how fast it is when nobody dies")
    parser.add_argument("--seed", type=int, default=None, help="of the kills; default: the clock")
    options = parser.parse_args(arguments)
    seed = time.time_ns() if options.seed is None else options.seed
    return campaign.concluded(run(options.rows, options.workers, not options.no_kills, seed))


if __name__ == "__main__":
    sys.exit(main())

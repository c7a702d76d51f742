"""Events: what happens in the stack while Prometheus looks, so that panels have something to show."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openai import OpenAI

from bench.containers.docker import ROOT, StepError, run, wait_until

BUDGET_MIB = 500
ROWS = 40
SERVED_WITHIN_S = 60.0


class Events:
    """Of one stack; `ready` is what `enginehouse up` wrote of itself."""

    def __init__(self, ready: Mapping[str, Any], folder: Path) -> None:
        self._ready, self._folder = ready, folder
        self._openai = OpenAI(base_url=ready["base_url"], api_key=ready["api_key"], max_retries=0, timeout=60)

    def all(self, load_s: int) -> None:
        """One after the other, while a load runs for most of the time. Raises StepError."""
        wait_until("house-chat is gone", lambda: not self.ready_replicas("house-chat"), SERVED_WITHIN_S)
        self.ask("house-chat")
        self.budgets()
        self.command("rollout", "start", "-m", "fixed", "--stable", "fixed-a", "--candidate", "fixed-b")
        load = self.load(load_s)
        for _ in range(20):
            self.ask("fixed")
        self.leave_early()
        self.batch_job()
        os.kill(self._ready["pids"]["triton-1"], signal.SIGKILL)
        for _ in range(20):
            self.ask("fixed")
        if load.wait(load_s + 60):
            raise StepError(f"the load failed: {(self._folder / 'load.log').read_text()[-800:]}")

    def budgets(self) -> None:
        """Memory for the pool's servers, limits for the tenant."""
        pool = json.loads(self.command("get", "pool", "tritons", "-o", "json"))[0]
        for server in pool["actuator"]["servers"]:
            server["memory_mib"] = BUDGET_MIB
        (tenant,) = json.loads(self.command("get", "tenants", "-o", "json"))
        tenant |= {"tokens_per_min": 10_000_000, "concurrency": 1000}
        manifest = self._folder / "budgets.yaml"
        documents = [{"kind": "Pool", **pool}, {"kind": "Tenant", **tenant}]
        manifest.write_text("\n---\n".join(json.dumps(one) for one in documents))
        self.command("apply", "-f", str(manifest))

    def ready_replicas(self, deployment: str) -> int:
        """Of a scaled deployment, now."""
        (status,) = json.loads(self.command("get", "scaling", deployment, "-o", "json"))
        return int(status["ready"])

    def load(self, seconds: int) -> subprocess.Popen[bytes]:
        """More requests than one replica can serve in time."""
        arguments = ["--model", "depot-chat", "--rate", "5", "--seconds", str(seconds)]
        command = [sys.executable, "-m", "enginehouse", "loadtest", *arguments, *self._here()]
        with (self._folder / "load.log").open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def ask(self, model: str) -> None:
        """One answer of a few tokens."""
        messages: list[Any] = [{"role": "user", "content": "What is an enginehouse?"}]
        with self._openai.chat.completions.create(
            model=model, messages=messages, max_tokens=8, temperature=0, seed=1, stream=True
        ) as stream:
            list(stream)

    def leave_early(self) -> None:
        """A client that closes its stream at the first token."""
        messages: list[Any] = [{"role": "user", "content": "Tell me all about steam."}]
        with self._openai.chat.completions.create(
            model="depot-chat", messages=messages, max_tokens=200, stream=True
        ) as stream:
            next(iter(stream))

    def batch_job(self) -> None:
        """Some rows, run to their end."""
        body = {"model": "fixed", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        rows = [
            {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
            for name in map(str, range(ROWS))
        ]
        file = io.BytesIO("\n".join(map(json.dumps, rows)).encode())
        told = self._openai.files.create(file=("rows.jsonl", file), purpose="batch")
        job = self._openai.batches.create(
            input_file_id=told.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        wait_until(
            "the batch job is done",
            lambda: self._openai.batches.retrieve(job.id).status == "completed",
            SERVED_WITHIN_S,
        )

    def command(self, *arguments: str) -> str:
        """An `enginehouse` command of this stack."""
        return run([sys.executable, "-m", "enginehouse", *arguments, *self._here()])

    def _here(self) -> tuple[str, str]:
        return "--state-dir", str(self._ready["state_dir"])

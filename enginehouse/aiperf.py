"""aiperf: NVIDIA's load generator, driven where it is installed.

Written against aiperf 0.13.0: the plan goes in as a Mooncake trace on a fixed schedule, so that it sends what
our own client would; times come back from `profile_export.jsonl`, a line for each request. Its times count
from when it sent a request; `credit_issued_ns` says when it was due, and the difference is added.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from engine_builder.loadtest.outcomes import Outcome, Run
from engine_builder.loadtest.outcomes import run as run_of
from engine_builder.loadtest.plan import Planned
from enginehouse.errors import CommandError
from enginehouse.targets import Target

RECORDS = "profile_export.jsonl"
_ERROR_LENGTH = 120
_STARTS_S = 120.0
"""How long it may take beside its plan: it starts a dozen processes, and waits for the last answers."""
_LOG_LINES = 6


def installed() -> list[str] | None:
    """How it is called here; None: it is not installed."""
    if importlib.util.find_spec("aiperf") is not None:
        return [sys.executable, "-m", "aiperf"]
    found = shutil.which("aiperf")
    return None if found is None else [found]


def version() -> str:
    """As the installed package says; `aiperf` alone where it is a program of another environment."""
    try:
        return f"aiperf {metadata.version('aiperf')}"
    except metadata.PackageNotFoundError:
        return "aiperf"


def arguments(target: Target, plan: Path, results: Path, tokenizer: str, seed: int) -> list[str]:
    """Of `aiperf`. The key, where there is one, can be seen among this machine's processes meanwhile."""
    key = [] if target.connection.api_key is None else ["--api-key", target.connection.api_key]
    return [
        "profile",
        *("--model", target.model, "--url", target.connection.root, *key),
        *("--endpoint-type", "chat", "--streaming", "--use-legacy-max-tokens", "--use-server-token-count"),
        *("--tokenizer", tokenizer, "--extra-inputs", "temperature:0", "--random-seed", str(seed)),
        *("--input-file", str(plan), "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"),
        *("--output-artifact-dir", str(results), "--export-level", "records"),
        *("--ui-type", "none", "--no-server-metrics", "--no-gpu-telemetry"),
    ]


def trace(plan: Sequence[Planned]) -> str:
    """The plan in Mooncake's format: times in milliseconds, a line for each request."""
    rows = (
        {
            "timestamp": round(1e3 * one.at_s),
            "input_length": one.prompt_tokens,
            "output_length": one.output_tokens,
        }
        for one in plan
    )
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def outcomes(records: str) -> list[Outcome]:
    """Of the text of `profile_export.jsonl`. Raises CommandError where it is of another form."""
    try:
        rows = [json.loads(line) for line in records.splitlines() if line.strip()]
        rows = [one for one in rows if one["metadata"]["benchmark_phase"] == "profiling"]
        first_ns = min((one["metadata"]["credit_issued_ns"] for one in rows), default=0)
        return sorted(_outcome(one, first_ns) for one in rows)
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"what aiperf wrote is not understood: {error!r}",
            "this was made for aiperf 0.13; measure with our own client: --driver own",
        ) from error


def _outcome(record: dict[str, Any], first_ns: int) -> Outcome:
    about, figures = record["metadata"], record["metrics"]
    at_s = (about["credit_issued_ns"] - first_ns) / 1e9
    late_s = max(0.0, (about["request_start_ns"] - about["credit_issued_ns"]) / 1e9)
    if (error := record.get("error")) is not None:
        told = f"{error.get('code', '')} {error.get('message', '')}".strip()
        return Outcome(at_s, late_s, error=told[:_ERROR_LENGTH])
    return Outcome(
        at_s,
        late_s,
        figures["input_sequence_length"]["value"],
        figures["output_sequence_length"]["value"],
        late_s + figures["time_to_first_token"]["value"] / 1e3,
        late_s + figures["request_latency"]["value"] / 1e3,
    )


async def run(
    target: Target, plan: Sequence[Planned], seconds: float, tokenizer: str, says: Callable[[str], None]
) -> Run:
    """Have aiperf send a plan. Raises CommandError with the end of its log where it fails."""
    program = installed()
    if program is None:
        raise CommandError("aiperf is not installed", "pip install aiperf, or use our client: --driver own")
    with TemporaryDirectory(prefix="enginehouse-aiperf-") as folder:
        sent, results = Path(folder) / "plan.jsonl", Path(folder) / "results"
        sent.write_text(trace(plan))
        says("aiperf starts")
        process = await asyncio.create_subprocess_exec(
            *program,
            *arguments(target, sent, results, tokenizer, 1),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        began_s = monotonic()
        try:
            async with asyncio.timeout(seconds + _STARTS_S):
                said, _ = await process.communicate()
        except TimeoutError as error:
            raise CommandError(
                f"aiperf had not ended after {monotonic() - began_s:.0f} s", "use our client: --driver own"
            ) from error
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        records = results / RECORDS
        if process.returncode != 0 or not records.exists():
            end = "\n".join(said.decode(errors="replace").strip().splitlines()[-_LOG_LINES:])
            raise CommandError(f"aiperf failed ({process.returncode}):\n{end}", "or use ours: --driver own")
        found = outcomes(records.read_text(encoding="utf-8"))
    if not found:
        raise CommandError("aiperf has sent nothing", "use our client: --driver own")
    return run_of(found, seconds)

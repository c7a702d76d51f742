"""`python -m bench.boards`: every expression of the dashboards, asked of a real Prometheus.

    python -m bench.boards [--prometheus PROGRAM] [--seconds 40]

Starts `enginehouse up` with two Tritons, and a Prometheus by deploy/compose/prometheus.yml with local
targets; makes things happen (load, a cold model, a rollout, a batch job, a client that leaves, a Triton that
is killed) and asks for what each panel has shown. One that shows nothing must say why that may be. The last
line is `RESULT {json}`; exit 1 where a panel has neither, 2 where there is no Prometheus.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAIError

from bench import campaign
from bench.boards.events import Events
from bench.boards.prometheus import CONFIG, Prometheus, PrometheusMissingError, checked, find, scraping
from bench.build import BenchError
from bench.containers.client import DASHBOARDS, panels_of, with_values
from bench.containers.docker import ROOT, StepError, wait_until
from enginehouse.local.ports import free_port

STACK = Path(__file__).with_name("stack.yaml")
UP_WITHIN_S = 180.0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def stack(folder: Path, metrics_port: int) -> Iterator[dict[str, Any]]:
    """`enginehouse up`, ready, with the controller's page on a port of its own. Raises StepError."""
    ready = folder / "ready.json"
    arguments = ["--stack", str(STACK), "--port", "0", "--workers", "2", "--ready-file", str(ready)]
    arguments += ["--state-dir", str(folder / "state"), "--pacing", "h100-sxm-llama-3.1-8b-fp8"]
    environment = {**os.environ, "ENGINEHOUSE_CONTROLLER__METRICS_PORT": str(metrics_port)}
    with (folder / "up.log").open("wb") as log:
        command = [sys.executable, "-m", "enginehouse", "up", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_until("the stack is up", lambda: ready.exists() or process.poll() is not None, UP_WITHIN_S)
        if not ready.exists():
            raise StepError(f"the stack did not start: {(folder / 'up.log').read_text()[-800:]}")
        yield json.loads(ready.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def targets_of(ready: dict[str, Any], metrics_port: int) -> dict[str, list[str]]:
    """What runs, by the jobs of the compose file's Prometheus."""
    tritons = [one["metrics"].removeprefix("http://").removesuffix("/metrics") for one in ready["triton"]]
    gateway = ready["metrics_url"].removeprefix("http://").removesuffix("/metrics")
    return {"gateway": [gateway], "controller": [f"127.0.0.1:{metrics_port}"], "triton": tritons}


def looked_at(prometheus: Prometheus) -> dict[str, Any]:
    """What each panel shows, line by line; and the panels that show nothing without saying why."""
    shown, quiet, mute, expressions = 0, {}, [], 0
    for board in sorted(DASHBOARDS.glob("*.json")):
        for panel in panels_of(board):
            name, reason = f"{board.stem}: {panel['title']}", panel["fieldConfig"]["defaults"].get("noValue")
            for target in panel["targets"]:
                expressions += 1
                peaks = prometheus.peaks(with_values(target["expr"]))
                shown += bool(peaks)
                line = (
                    f"{len(peaks)} series, at most {max(peaks.values()):.4g}"
                    if peaks
                    else reason or "NOTHING"
                )
                _say(f"{name} [{target['refId']}]: {line}")
                if not peaks and reason:
                    quiet[f"{name} [{target['refId']}]"] = reason
                elif not peaks:
                    mute.append(f"{name} [{target['refId']}]")
    return {"expressions": expressions, "with_series": shown, "quiet": quiet, "without_reason": mute}


def checked_boards(program: Path, load_s: int) -> dict[str, Any]:
    """The whole check. Raises StepError."""
    _say(checked(program, CONFIG) or "no promtool beside Prometheus: the configuration is only started with")
    metrics_port = free_port()
    with tempfile.TemporaryDirectory(prefix="boards-") as name:
        folder = Path(name)
        with stack(folder, metrics_port) as ready:
            targets = targets_of(ready, metrics_port)
            with scraping(program, folder, targets) as prometheus:
                wait_until("all targets are scraped", lambda: set(prometheus.up().values()) == {1.0}, 30)
                Events(ready, folder).all(load_s)
                return looked_at(prometheus)


def main() -> int:
    """Run it; nothing is left running."""
    parser = campaign.parser(__doc__, "python -m bench.boards --seconds 40")
    parser.add_argument("--prometheus", help="program; default: the one on PATH")
    parser.add_argument("--seconds", type=int, default=40, help="how long the load lasts")
    options = parser.parse_args()
    return campaign.concluded(lambda: judged(options.prometheus, options.seconds))


def judged(prometheus: str | None, load_s: int) -> dict[str, Any]:
    """What was shown, and what went wrong, if anything. Raises BenchError without a Prometheus."""
    try:
        program = find(prometheus)
    except PrometheusMissingError as error:
        raise BenchError(str(error)) from error
    begun_s = time.monotonic()
    try:
        result = checked_boards(program, load_s)
        problem = "; ".join(result["without_reason"]) or None
    except (StepError, OpenAIError) as error:
        result, problem = {}, str(error)
        _say(f"error: {error}")
    told = {"ok": problem is None, "problem": problem, "took_s": round(time.monotonic() - begun_s, 1)}
    return {**told, **result}


if __name__ == "__main__":
    sys.exit(main())

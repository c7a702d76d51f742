"""`python -m bench.boards`: every expression of the dashboards, asked of a real Prometheus.

    python -m bench.boards [--prometheus PROGRAM] [--seconds 40]

Starts `enginehouse up` with two Tritons, and a Prometheus by deploy/compose/prometheus.yml with local
targets; makes things happen (load, a cold model, a rollout, a batch job, a client that leaves, a Triton that
is killed) and asks for what each panel has shown. One that shows nothing must say why that may be. The last
line is `RESULT {json}`; exit 1 where a panel has neither, 2 where there is no Prometheus.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import OpenAIError

from bench import campaign
from bench.boards.events import Events
from bench.boards.prometheus import CONFIG, Prometheus, PrometheusMissingError, checked, find, scraping
from bench.build import BenchError
from bench.containers.client import DASHBOARDS, panels_of, with_values
from bench.containers.docker import StepError, wait_until
from bench.up import up
from enginehouse.local.ports import free_port

STACK = Path(__file__).with_name("stack.yaml")
PACING = "h100-sxm-llama-3.1-8b-fp8"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


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
        arguments = ("--stack", str(STACK), "--workers", "2", "--pacing", PACING)
        with up(folder, *arguments, ENGINEHOUSE_CONTROLLER__METRICS_PORT=str(metrics_port)) as running:
            targets = targets_of(running.ready, metrics_port)
            with scraping(program, folder, targets) as prometheus:
                wait_until("all targets are scraped", lambda: set(prometheus.up().values()) == {1.0}, 30)
                Events(running.ready, folder).all(load_s)
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

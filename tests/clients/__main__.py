"""`python -m tests.clients`: every SDK against a real stack; `make clients` makes their environment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import campaign
from bench.build import BenchError
from tests.clients.conversations import CLIENTS
from tests.stack.stack import ROOT, Stack

MODELS = ("house-chat", "yard-chat")
"""By token ids and by text."""
TIMEOUT_S = 120.0


def main() -> int:
    """0 when every client held its conversation."""
    parser = campaign.parser(__doc__, "python -m tests.clients --only openai")
    parser.add_argument("--python", type=Path, default=ROOT / ".clients" / "bin" / "python")
    parser.add_argument("--only", default="", help="comma list of clients")
    options = parser.parse_args()
    return campaign.concluded(lambda: held(options.python, options.only))


def held(python: Path, only: str) -> dict[str, Any]:
    """How many conversations were held, and which were not. Raises BenchError without their environment."""
    if not python.exists():
        raise BenchError(f"{python} does not exist; run `make clients`")
    chosen = [name for name in CLIENTS if not only or name in only.split(",")]
    console, failed, whole = Console(stderr=True), [], 0
    with (
        tempfile.TemporaryDirectory(prefix="enginehouse-clients-") as folder,
        Stack.start(Path(folder)) as stack,
    ):
        for name in chosen:
            for model in MODELS:
                problem = converse(python, name, stack, model)
                console.print(f"{name} · {model}: {problem or 'held'}", highlight=False)
                whole += problem is None
                failed += [] if problem is None else [f"{name} · {model}"]
    return {"ok": not failed, "conversations": whole, "failed": failed}


def converse(python: Path, client: str, stack: Stack, model: str) -> str | None:
    """What went wrong in one conversation; None: nothing."""
    script = ROOT / "tests" / "clients" / "conversations.py"
    done = subprocess.run(
        [str(python), str(script), client, stack.base_url, stack.key, model],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:400]


if __name__ == "__main__":
    sys.exit(main())

"""`python -m emulator.train --model house-chat --out DIR`: trains a shipped model anew."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: results depend on the thread count

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Trains one model into a folder and says how it went."""
    from emulator.train.specs import MODELS
    from emulator.train.train import train

    parser = argparse.ArgumentParser(prog="python -m emulator.train", description=__doc__)
    parser.add_argument("--model", required=True, choices=sorted(MODELS))
    parser.add_argument("--out", required=True, type=Path, help="folder to write the model to")
    options = parser.parse_args(arguments)
    outcome = train(MODELS[options.model], options.out, _say)
    loss = f"{outcome.first_loss:.3f} -> {outcome.last_loss:.3f}"
    _say(f"{options.out}: loss {loss} in {outcome.duration_s:.0f} s")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

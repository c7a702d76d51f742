"""`python -m enginehouse.local.install_triton`: make the local Triton's environment ahead of the first `up`.

Needs nothing but the standard library. Where a real Triton cannot run it says so and succeeds: `up` then
serves the same engines without it.
"""

from __future__ import annotations

import asyncio
import sys

from enginehouse.errors import MachineError
from enginehouse.local.triton_environment import check_triton, ensure_environment


def main() -> int:
    """0 unless Triton could run here and its environment could not be made."""
    if (problem := check_triton()) is not None:
        sys.stdout.write(f"triton: {problem.message}\n  {problem.remedy}\n")
        return 0
    try:
        asyncio.run(ensure_environment(progress=lambda text: _say(f"triton: {text}")))
    except MachineError as error:
        sys.stderr.write(f"error: {error.message}\n  {error.remedy}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

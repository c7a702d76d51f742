"""`python -m engine_builder.doubles PROGRAM ARGUMENTS...`: runs the double of one program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine_builder.doubles.programs import PROGRAMS
from engine_builder.doubles.telling import run


def main(arguments: Sequence[str]) -> int:
    """Runs the program that the first argument names."""
    if not arguments or arguments[0] not in PROGRAMS:
        sys.stderr.write(f"usage: python -m engine_builder.doubles {{{','.join(PROGRAMS)}}} ...\n")
        return 2
    return run(PROGRAMS[arguments[0]], arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

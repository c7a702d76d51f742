"""`python -m engine_builder.doubles PROGRAM ARGUMENTS...`: runs the double of one program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from engine_builder.doubles import convert_checkpoint, quantize, trtllm_build
from engine_builder.doubles.telling import run

MAINS: Mapping[str, Callable[[Sequence[str] | None], None]] = {
    module.PROGRAM: module.main for module in (convert_checkpoint, quantize, trtllm_build)
}


def main(arguments: Sequence[str]) -> int:
    """Runs the program that the first argument names."""
    if not arguments or arguments[0] not in MAINS:
        sys.stderr.write(f"usage: python -m engine_builder.doubles {{{','.join(MAINS)}}} ...\n")
        return 2
    return run(MAINS[arguments[0]], arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

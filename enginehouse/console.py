"""Output of commands: as wide as the terminal, or, into a file or pipe, wide enough not to cut."""

from __future__ import annotations

import sys

from rich.console import Console

PLAIN_WIDTH = 200


def output() -> Console:
    """Where a command prints its result."""
    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, width=PLAIN_WIDTH)

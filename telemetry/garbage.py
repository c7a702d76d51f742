"""Garbage: how seldom a process looks for cycles, which is nearly never worth its time.

Reference counts free nearly all that an import or a request leaves behind.
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (20_000, 20, 50)
"""Looking for cycles every 700 objects only costs."""


def look_seldom() -> None:
    """Look for cycles more seldom than Python does by itself; call it before what a process imports."""
    gc.set_threshold(*_THRESHOLDS)


def freeze_gc() -> int:
    """Take everything alive now out of garbage collection; call it once the process is set up.

    Full collections then look only at what requests leave behind, and write nothing to memory that a forked
    process shares. Returns the number of objects.
    """
    gc.collect()
    gc.freeze()
    look_seldom()
    return gc.get_freeze_count()

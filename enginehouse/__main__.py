"""`enginehouse`, and `python -m enginehouse`: how the processes of the local stack start each other."""

from __future__ import annotations

import os
import signal

from telemetry.garbage import look_seldom

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its status; Ctrl-C while it is still being read just ends it."""
    look_seldom()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        from enginehouse.cli import main as run

        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        from enginehouse.cli import main as run
    run()


if __name__ == "__main__":
    main()

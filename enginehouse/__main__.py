"""The `enginehouse` command, and `python -m enginehouse`, by which the local stack's processes start."""

from __future__ import annotations

from telemetry.garbage import look_seldom


def main() -> None:
    """Run the command line and exit with its status."""
    look_seldom()
    from enginehouse.cli import main

    main()


if __name__ == "__main__":
    main()

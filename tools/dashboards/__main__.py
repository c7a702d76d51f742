"""`python -m tools.dashboards` writes the dashboards' files anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.dashboards.anatomy import ANATOMY
from tools.dashboards.fleet import FLEET
from tools.dashboards.grafana import dashboard

FOLDER = Path(__file__).parents[2] / "deploy" / "compose" / "grafana" / "dashboards"


def rendered() -> dict[str, str]:
    """Text of each dashboard's file, by its name."""
    boards = [
        dashboard("fleet", "Enginehouse: fleet", "What the whole fleet does, and what it waits for.", FLEET),
        dashboard(
            "anatomy",
            "Enginehouse: request anatomy",
            "Where the time of requests goes.",
            ANATOMY,
            traces=True,
        ),
    ]
    return {f"{board['uid']}.json": json.dumps(board, indent=1) + "\n" for board in boards}


def main() -> int:
    """Write them."""
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)
        sys.stdout.write(f"{FOLDER / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

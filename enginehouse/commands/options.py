"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", help="Gateway to talk to. Default: ENGINEHOUSE_URL, else the local stack."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="API key. Default: ENGINEHOUSE_API_KEY or ENGINEHOUSE_ADMIN_KEY, else the local stack's.",
    ),
]
StateDirectory = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", help="Folder of the local stack. Default: ENGINEHOUSE_STATE_DIR, else the XDG one."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file, TOML or YAML. The environment wins over it."),
]

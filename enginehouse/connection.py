"""Connection: how a command finds a running gateway and its keys.

Order: the option, then the environment (`ENGINEHOUSE_URL`, `ENGINEHOUSE_API_KEY`,
`ENGINEHOUSE_ADMIN_KEY`, or the keys' files by the same names with `_FILE`), then the ready file of the local
stack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginehouse.errors import ApiError
from enginehouse.local.state_dir import StateDir, default_state_dir
from enginehouse.secret_files import secret

URL_ENV = "ENGINEHOUSE_URL"
API_KEY_ENV = "ENGINEHOUSE_API_KEY"
ADMIN_KEY_ENV = "ENGINEHOUSE_ADMIN_KEY"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a gateway listens, and what lets us in."""

    root: str
    """`http://host:port`, without a path."""
    api_key: str | None
    admin_key: str | None

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK calls base URL."""
        return f"{self.root}/v1"

    @property
    def admin_url(self) -> str:
        """Root of the admin API."""
        return f"{self.root}/admin/v1"


def locate(
    url: str | None = None,
    key: str | None = None,
    state_dir: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """The gateway to talk to. `key` stands for either key; raises ApiError when no URL is known.

    Keys of the ready file are used for its own URL alone, so that they never travel elsewhere.
    """
    ready = _ready_file(state_dir)
    local = root_of(ready["base_url"]) if ready else None
    given = url or environment.get(URL_ENV)
    root = root_of(given) if given else local
    if root is None:
        raise ApiError(
            "no gateway is known: no local stack runs here and no URL is given",
            "start one with `enginehouse up`, or give --url and --key",
        )
    own = ready if ready and root == local else {}
    return Connection(
        root=root,
        api_key=key or secret(API_KEY_ENV, environment) or own.get("api_key"),
        admin_key=key or secret(ADMIN_KEY_ENV, environment) or own.get("admin_key"),
    )


def local_root(state_dir: Path | None = None) -> str | None:
    """`http://host:port` of the local stack; None while none is ready."""
    ready = _ready_file(state_dir)
    return root_of(ready["base_url"]) if ready else None


def root_of(url: str) -> str:
    """`http://host:port` of a URL that may be a base URL (`…/v1`) and may lack its scheme."""
    with_scheme = url if "://" in url else f"http://{url}"
    return with_scheme.rstrip("/").removesuffix("/v1").removesuffix("/admin").rstrip("/")


def _ready_file(state_dir: Path | None) -> dict[str, Any]:
    path = StateDir(state_dir or default_state_dir()).ready
    try:
        ready: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return ready

"""`python -m enginehouse.containers.secrets FOLDER`: makes the secrets of a stack of containers, once.

    redis/redis.conf, redis/password    for Redis, and for its health check
    registry/redis_url                  the registry's address with that password, for our own processes
    keys/api_key, keys/admin_key        the first keys, for the one who registers them
    grafana/admin_password

Each folder is a volume of its own, so that a container sees what it needs. What is there already stays. Its
owner and group can read a file with a secret, nobody else.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from enginehouse.errors import CommandError, MachineError, report
from telemetry.whole_file import write_whole
from tenancy.keys import new_key

MODE = 0o440
REDIS = "redis:6379"
USAGE = "python -m enginehouse.containers.secrets FOLDER"


def make(folder: Path) -> list[str]:
    """Write the secrets that are missing; their names below `folder`. Raises MachineError."""
    password = _kept(folder / "redis" / "password") or secrets.token_urlsafe(32)
    wanted = {
        "redis/password": password,
        "redis/redis.conf": f"requirepass {password}",
        "registry/redis_url": f"redis://:{password}@{REDIS}/0",
        "keys/api_key": new_key()[0],
        "keys/admin_key": new_key()[0],
        "grafana/admin_password": secrets.token_urlsafe(18),
    }
    made = [name for name in wanted if not (folder / name).exists()]
    try:
        for name in made:
            write_whole(folder / name, f"{wanted[name]}\n", mode=MODE, synced=True)
    except OSError as error:
        raise MachineError(
            f"{folder}: secrets cannot be written: {error.strerror}",
            "the volumes must belong to user 10001; `docker compose down -v` removes them, to be made anew",
        ) from error
    return made


def _kept(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


def main() -> int:
    """0 when all secrets are there."""
    try:
        if len(sys.argv) != 2:
            raise CommandError("one folder is wanted", USAGE)
        made = make(Path(sys.argv[1]))
    except CommandError as error:
        report(error)
        return error.exit_code
    sys.stdout.write(f"made {', '.join(made)}\n" if made else "all secrets are there already\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

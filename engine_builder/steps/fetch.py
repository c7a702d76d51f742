"""`python -m engine_builder.steps.fetch URL FOLDER`: a checkpoint from a store, for what reads folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fsspec.core import url_to_fs

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import BuilderError


def fetch(url: str, folder: Path) -> None:
    """Copies all files, `config.json` last: a folder with it is whole. Raises CheckpointError, OSError."""
    files = Checkpoint.open(url).files
    filesystem, root = url_to_fs(url)
    for number, name in enumerate(sorted(files, key=lambda name: (name == "config.json", name)), 1):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(f"{root.rstrip('/')}/{name}", str(target))
        sys.stdout.write(f"{number} of {len(files)}: {name}, {files[name]} bytes\n")
        sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Fetches one checkpoint."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m engine_builder.steps.fetch URL FOLDER\n")
        return 2
    try:
        fetch(arguments[0], Path(arguments[1]))
    except (BuilderError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

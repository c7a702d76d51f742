"""`python -m engine_builder.steps.check --version V TABLE=FILE...`: holds files to the contract sheet.

A file is a document in YAML or JSON, or a command line as a JSON list. Prints what is wrong, and exits with 1
then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from engine_builder.contract import PINNED, TABLES, Complaint, complaints, document_complaints


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks every file; 0 when the sheet knows all that is in them."""
    parser = argparse.ArgumentParser(prog="python -m engine_builder.steps.check", description=__doc__)
    parser.add_argument("--version", default=PINNED)
    parser.add_argument("files", nargs="+", metavar="TABLE=FILE")
    options = parser.parse_args(arguments)
    wrong = 0
    for pair in options.files:
        table, _, path = pair.partition("=")
        if table not in TABLES:
            parser.error(f"{table!r} is none of {', '.join(sorted(TABLES))}")
        found = judge(table, Path(path), options.version)
        wrong += len(found)
        sys.stdout.write(
            f"{path}: {len(found) or 'nothing'} that {table} of {options.version} would refuse\n"
        )
        sys.stderr.writelines(f"{path}: {complaint}\n" for complaint in found)
    return 1 if wrong else 0


def judge(table: str, path: Path, version: str) -> list[Complaint]:
    """Complaints about one file."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if isinstance(document, list):
        program = len(table.split())  # words of the program's own name, as in `vllm serve`
        return complaints(table, [str(word) for word in document[program:]], version)
    return document_complaints(table, document, version)


if __name__ == "__main__":
    sys.exit(main())

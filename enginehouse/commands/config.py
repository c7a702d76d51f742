"""`enginehouse config`."""

from __future__ import annotations

from enginehouse.commands.options import ConfigFile


def config(config: ConfigFile = None) -> None:
    """Print the effective settings, where each comes from, and no secret.

    Examples:

      enginehouse config

      ENGINEHOUSE_GATEWAY__PORT=9000 enginehouse config --config enginehouse.toml
    """
    from rich.table import Table

    from enginehouse.console import output
    from enginehouse.settings import effective, load

    table = Table("setting", "value", "source", box=None, pad_edge=False)
    for row in effective(load(config)):
        table.add_row(row.name, row.shown, row.source)
    output().print(table)

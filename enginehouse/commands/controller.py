"""`enginehouse controller`."""

from __future__ import annotations

from enginehouse.commands.options import ConfigFile


def controller(config: ConfigFile = None) -> None:
    """Run one controller: it introspects model servers and keeps endpoints registered; of many, one leads.

    Example: enginehouse controller --config enginehouse.toml
    """
    from enginehouse.controller_process import run_controller

    run_controller(config)

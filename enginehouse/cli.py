"""The `enginehouse` command: its sub-commands, and how what stops one is shown.

Commands live in `enginehouse.commands`, one module each; they import what they need when they run, so
that `enginehouse --help` answers at once.
"""

from __future__ import annotations

import sys

import typer

from enginehouse.commands.apply import apply
from enginehouse.commands.build import build
from enginehouse.commands.builder import builder
from enginehouse.commands.builds import builds
from enginehouse.commands.card import card
from enginehouse.commands.chat import chat
from enginehouse.commands.config import config
from enginehouse.commands.controller import controller
from enginehouse.commands.delete import delete
from enginehouse.commands.doctor import doctor
from enginehouse.commands.drain import drain
from enginehouse.commands.engines import engines
from enginehouse.commands.explain import explain
from enginehouse.commands.gateway import gateway
from enginehouse.commands.get import describe, get
from enginehouse.commands.history import history, rollback
from enginehouse.commands.keys import keys
from enginehouse.commands.loadtest import loadtest
from enginehouse.commands.plan import plan
from enginehouse.commands.preflight import preflight
from enginehouse.commands.quality import quality
from enginehouse.commands.replay import replay
from enginehouse.commands.restart import restart
from enginehouse.commands.rollout import rollout
from enginehouse.commands.top import top
from enginehouse.commands.traces import traces
from enginehouse.commands.triton import triton
from enginehouse.commands.tune import tune
from enginehouse.commands.up import up
from enginehouse.commands.version import version
from enginehouse.errors import CommandError, report

INTERRUPTED = 130

RUN = "Run"
USE = "Use a running stack"
REGISTRY = "What should run"
ENGINES = "Engines"
MEASURE = "Measure and improve"
HOUSE = "This machine"

app = typer.Typer(
    name="enginehouse",
    help="One OpenAI-compatible endpoint in front of a whole fleet of Triton-hosted TensorRT-LLM engines.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with `enginehouse up`, then, in another terminal, `enginehouse chat`.",
)
app.command(rich_help_panel=RUN)(up)
app.command(rich_help_panel=RUN)(gateway)
app.command(rich_help_panel=RUN)(controller)
app.command(rich_help_panel=RUN)(builder)
app.command(rich_help_panel=RUN)(triton)
app.command(rich_help_panel=USE)(chat)
app.command(rich_help_panel=USE)(traces)
app.command(rich_help_panel=USE)(explain)
app.command(rich_help_panel=USE)(top)
app.add_typer(rollout, name="rollout", rich_help_panel=REGISTRY)
app.command(rich_help_panel=REGISTRY)(apply)
app.command(rich_help_panel=REGISTRY)(get)
app.command(rich_help_panel=REGISTRY)(describe)
app.command(rich_help_panel=REGISTRY)(delete)
app.command(rich_help_panel=REGISTRY)(history)
app.command(rich_help_panel=REGISTRY)(rollback)
app.command(rich_help_panel=REGISTRY)(drain)
app.command(rich_help_panel=REGISTRY)(restart)
app.add_typer(card, name="card", rich_help_panel=REGISTRY)
app.add_typer(keys, name="keys", rich_help_panel=REGISTRY)
app.command(rich_help_panel=ENGINES)(plan)
app.command(rich_help_panel=ENGINES)(build)
app.add_typer(builds, name="builds", rich_help_panel=ENGINES)
app.add_typer(engines, name="engines", rich_help_panel=ENGINES)
app.command(rich_help_panel=ENGINES)(preflight)
app.command(rich_help_panel=MEASURE)(quality)
app.command(rich_help_panel=MEASURE)(loadtest)
app.command(rich_help_panel=MEASURE)(tune)
app.command(rich_help_panel=HOUSE)(doctor)
app.command(rich_help_panel=HOUSE)(replay)
app.command(rich_help_panel=HOUSE)(config)
app.command(rich_help_panel=HOUSE)(version)


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        app()
    except CommandError as error:
        report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not _interrupted(error):
            raise
        sys.exit(INTERRUPTED)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C came while a module was imported: extensions make errors of their own of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False

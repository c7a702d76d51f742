"""From the arguments of `enginehouse up` to a running stack."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from emulator.engine.pacing import Pacing
from enginehouse.chat import Conversation
from enginehouse.connection import Connection
from enginehouse.errors import SettingsError
from enginehouse.local.stack import DEMO_STACK, LocalStack, read_stack
from enginehouse.local.state_dir import default_state_dir
from enginehouse.local.up import LocalRun, UpOptions
from enginehouse.settings import load

DEMO_QUESTION = "What is an enginehouse?"


@dataclass(frozen=True, slots=True)
class UpArguments:
    """As typed; None where nothing was said."""

    port: int | None
    host: str | None
    state_dir: Path | None
    workers: int | None
    ready_file: Path | None
    fallback: bool
    pacing: str
    trace_ratio: float | None
    stack: Path | None
    builder: bool
    demo: bool
    since: float | None


def run_up(arguments: UpArguments) -> None:
    """Serve until asked to stop."""
    gateway = load().settings.gateway
    stack = read_stack(arguments.stack) if arguments.stack else DEMO_STACK
    if arguments.builder:
        stack = stack.model_copy(update={"builder": True})
    options = UpOptions(
        stack=stack,
        state_dir=arguments.state_dir or default_state_dir(),
        host=arguments.host or gateway.host,
        port=gateway.port if arguments.port is None else arguments.port,
        workers=arguments.workers or gateway.workers,
        ready_file=arguments.ready_file,
        fallback=arguments.fallback,
        pacing=card_of(arguments.pacing),
        trace_ratio=arguments.trace_ratio,
        begun_s=arguments.since,
    )
    begun_s = arguments.since or time.time()
    demo = partial(_show_one_answer, begun_s) if arguments.demo else None
    asyncio.run(LocalRun(options, Console(), demo).run())


def card_of(card: str) -> str:
    """`card`, checked before anything starts; a file by its whole path."""
    try:
        Pacing.load(card)
    except (ValueError, TypeError, OSError) as error:
        raise SettingsError("--pacing names no card that can be used", str(error)) from error
    return card if card in Pacing.names() else str(Path(card).resolve())


async def _show_one_answer(begun_s: float, connection: Connection, stack: LocalStack) -> None:
    """What `make demo` ends its start with: a real answer, as it is made."""
    model = stack.models[0].name
    _write(f'\n$ enginehouse chat -m {model} "{DEMO_QUESTION}"\n')
    await Conversation(connection, model, options={"max_tokens": 80}).answer(DEMO_QUESTION, _write)
    took_s = time.time() - begun_s
    _write(f"\n\nFrom the first command to this answer: {took_s:.0f} s. Ctrl-C stops the stack.\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""Preflight as a whole, and the record that it leaves with the engine."""

from __future__ import annotations

import asyncio
import datetime

from engine_builder.package.signing import Trust
from engine_builder.package.verify import Progress
from engine_builder.preflight.lint import OnCheck, lint
from engine_builder.preflight.live import live
from engine_builder.preflight.subject import Subject
from model_registry.engines import PreflightRecord
from model_registry.entities import ServerRef


async def preflight(
    subject: Subject,
    trust: Trust | None = None,
    server: ServerRef | None = None,
    target: str | None = None,
    *,
    on_check: OnCheck = lambda _: None,
    progress: Progress | None = None,
) -> PreflightRecord:
    """Every check of a subject's files, and of `server` where there is one; passed when each of them did.

    A server is asked even after files have failed: what it says often tells why. `trust` None: signatures are
    not looked at. `target`: the model to ask for; default, the text model, whose engine is found behind it.
    """
    checks = await asyncio.to_thread(lint, subject, trust, on_check, progress)
    if server is not None:
        checks += await live(subject, server, target, on_check)
    return PreflightRecord(
        passed=all(check.passed for check in checks),
        at=datetime.datetime.now(datetime.UTC),
        server=None if server is None else server.http,
        checks=tuple(checks),
    )

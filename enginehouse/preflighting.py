"""`enginehouse preflight` without its options: what is meant, which server, what becomes of the record."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine_builder.errors import BuilderError
from engine_builder.package.manifest import MANIFEST_FILE
from engine_builder.package.store import download
from engine_builder.package.verify import Progress
from engine_builder.preflight import Subject, preflight
from engine_builder.preflight.lint import OnCheck
from enginehouse.connection import Connection, locate
from enginehouse.engine_places import EnginePlaces
from enginehouse.engine_records import engine_named, known_if_any, write_preflight
from enginehouse.errors import ApiError, CommandError
from model_registry.engines import Engine, PreflightRecord
from model_registry.entities import Deployment, ServerRef


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says."""

    what: str
    server: ServerRef | None = None
    target: str | None = None
    gpu_class: str | None = None
    server_version: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found, and what became of it."""

    record: PreflightRecord
    note: str


async def run(
    wanted: Wanted,
    places: EnginePlaces,
    connection: Connection | None,
    on_check: OnCheck,
    progress: Progress,
) -> Outcome:
    """Look at an engine or a folder. Raises CommandError where there is nothing to look at."""
    if Path(wanted.what).is_dir():
        return await _look(Path(wanted.what), wanted, places, connection, on_check, progress)
    if connection is None:
        raise CommandError(
            f"{wanted.what!r} is no folder, and no gateway is known that would know an engine of this name",
            "name a folder, or give --url and --key",
        )
    engine = await engine_named(connection, wanted.what)
    with _folder_of(engine) as folder:
        return await _look(folder, wanted, places, connection, on_check, progress)


def maybe_located(url: str | None, key: str | None, state_dir: Path | None) -> Connection | None:
    """The gateway, where one is known."""
    try:
        return locate(url, key, state_dir)
    except ApiError:
        return None


@contextmanager
def _folder_of(engine: Engine) -> Iterator[Path]:
    """An engine's published folder, or a copy of it for the time being."""
    if Path(engine.url).is_dir():
        yield Path(engine.url)
        return
    folder = Path(tempfile.mkdtemp(prefix="enginehouse-engine-"))
    try:
        download(engine.url, folder / "engine")
        yield folder / "engine"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _look(
    folder: Path,
    wanted: Wanted,
    places: EnginePlaces,
    connection: Connection | None,
    on_check: OnCheck,
    progress: Progress,
) -> Outcome:
    known = await known_if_any(connection)
    name = _engine_name(folder)
    using = [] if known is None or name is None else known.of(name)
    server = wanted.server or next((one for deployment in using for one in deployment.servers), None)
    gpu_class = wanted.gpu_class or _label(using, "gpu_class")
    target = wanted.target or next((one.target for one in using if one.target), None)
    try:
        subject = Subject.read(folder, gpu_class=gpu_class, server_version=wanted.server_version)
        trust = None if subject.manifest is None else places.trust
        record = await preflight(subject, trust, server, target, on_check=on_check, progress=progress)
    except BuilderError as error:
        raise CommandError(str(error), error.remedy or None) from error
    engine = None if known is None or name is None else known.engines.get(name)
    return Outcome(record, await _kept(record, folder, engine, connection))


async def _kept(
    record: PreflightRecord, folder: Path, engine: Engine | None, connection: Connection | None
) -> str:
    """Write the record where it belongs, and say what was done."""
    if engine is None or connection is None:
        return "not recorded: the registry has no such engine"
    digest = hashlib.sha256(await asyncio.to_thread((folder / MANIFEST_FILE).read_bytes)).hexdigest()
    if digest != engine.manifest_sha256:
        return f"not recorded: the registry has another manifest under the name {engine.name}"
    if record.passed and record.server is None:
        return "not recorded: to become routable it has to answer; give --server URL"
    await write_preflight(connection, engine.name, record)
    return f"recorded with engine {engine.name}"


def _engine_name(folder: Path) -> str | None:
    try:
        manifest = Subject.read(folder).manifest
    except BuilderError:
        return None
    return None if manifest is None else manifest.name


def _label(deployments: list[Deployment], name: str) -> str | None:
    return next((one.labels[name] for one in deployments if name in one.labels), None)

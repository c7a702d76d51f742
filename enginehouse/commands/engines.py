"""`enginehouse engines`: published engines, from the store to where they are served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enginehouse.commands.options import ConfigFile, Key, StateDirectory, Url

if TYPE_CHECKING:
    from engine_builder.package import Published
    from enginehouse.engine_places import EnginePlaces

engines = typer.Typer(
    no_args_is_help=True, help="Published engines: list, show, verify, fetch, serve, publish, clean up, sign."
)
Engine = Annotated[str, typer.Argument(metavar="ENGINE", help="Its name.")]
Store = Annotated[
    str | None, typer.Option("--store", help="Folder or URL. Default: the setting engines.store.")
]


@engines.command("list")
def list_engines(
    store: Store = None,
    config: ConfigFile = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """List the engines of the store, with their preflight and the deployments that name them.

    Example: enginehouse engines list
    """
    import asyncio

    from engine_builder.package import list_published
    from enginehouse.builder_errors import told
    from enginehouse.console import output
    from enginehouse.engine_listing import engines_table
    from enginehouse.engine_places import EnginePlaces
    from enginehouse.engine_records import known_if_any
    from enginehouse.preflighting import maybe_located

    places = EnginePlaces.find(config, state_dir)
    with told():
        published = list_published(store or places.store)
    known = asyncio.run(known_if_any(maybe_located(url, key, state_dir)))
    output().print(engines_table(published, known))
    if known is None:
        typer.echo("note: no gateway was asked, so preflight and deployments are not known", err=True)


@engines.command()
def show(
    engine: Engine, store: Store = None, config: ConfigFile = None, state_dir: StateDirectory = None
) -> None:
    """Show an engine's manifest, without the list of its files.

    Example: enginehouse engines show llama-3-8b-4f2a91c0d7e3
    """
    import yaml

    from enginehouse.builder_errors import told
    from enginehouse.engine_places import EnginePlaces

    with told():
        found = _published(engine, store, EnginePlaces.find(config, state_dir))
    fields = found.manifest.model_dump(mode="json", exclude={"files"}, exclude_none=True)
    files = found.manifest.files
    fields |= {"url": found.url, "files": len(files), "bytes": sum(entry.size for entry in files.values())}
    typer.echo(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).rstrip())


@engines.command()
def verify(
    engine: Annotated[str, typer.Argument(metavar="ENGINE|FOLDER", help="An engine's name, or its folder.")],
    store: Store = None,
    config: ConfigFile = None,
    state_dir: StateDirectory = None,
) -> None:
    """Compare an engine with its signed manifest, file by file. Exit status 1 where they differ.

    Example: enginehouse engines verify ./llama-3-8b
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from engine_builder.package import verify as verified
    from enginehouse.builder_errors import told
    from enginehouse.engine_places import EnginePlaces
    from enginehouse.errors import CommandError

    places = EnginePlaces.find(config, state_dir)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with told(), Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        folder = Path(engine) if Path(engine).is_dir() else Path(_published(engine, store, places).url)
        if not folder.is_dir():
            raise CommandError(
                f"{folder} is not on this machine", f"first: enginehouse engines fetch {engine}"
            )
        task = shown.add_task("comparing digests", total=None)
        manifest, flaws = verified(
            folder, places.trust, lambda done, total: shown.update(task, completed=done, total=total)
        )
    for flaw in flaws:
        typer.echo(f"{flaw.path}: {flaw.what}")
    if flaws:
        raise CommandError(f"{manifest.name} is not as it was signed", "fetch or publish it anew")
    typer.echo(f"{manifest.name}: {len(manifest.files)} files are as they were signed")


@engines.command()
def fetch(
    engine: Engine,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder.")],
    served_at: Annotated[
        str | None,
        typer.Option("--served-at", help="DEST as the model server sees it, such as a mount. Default: DEST."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="The checkpoint there, for lanes that compile nothing."),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", help="GPUs of the executor: 0,1 or 0,1;2,3. Default: all.")
    ] = None,
    store: Store = None,
    config: ConfigFile = None,
    state_dir: StateDirectory = None,
) -> None:
    """Bring an engine to where a model server finds it, verified, with its repository and launch scripts.

    Examples:

      enginehouse engines fetch llama-3-8b-4f2a91c0d7e3 /srv/llama-3-8b

      enginehouse engines fetch llama-3-8b-4f2a91c0d7e3 /srv/llama --served-at /models/llama --gpus 0,1
    """
    from rich.console import Console
    from rich.progress import Progress

    from engine_builder.package import fetch as fetched
    from enginehouse.builder_errors import told
    from enginehouse.engine_places import EnginePlaces
    from enginehouse.interrupted import says_what_is_left

    places = EnginePlaces.find(config, state_dir)
    with (
        says_what_is_left(lambda: "nothing was fetched"),
        told(),
        Progress(console=Console(stderr=True), transient=True) as shown,
    ):
        found = _published(engine, store, places)
        task = shown.add_task("copying, then comparing digests", total=None)
        manifest = fetched(
            found.url,
            destination,
            places.trust,
            served_at=served_at,
            checkpoint=checkpoint,
            gpu_device_ids=gpus,
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )
    launch = sorted((destination / "serve" / "launch").glob("*.sh"))
    typer.echo(f"{manifest.name} is at {destination}")
    if manifest.runtime == "emulated" and served_at is None:
        typer.echo(f"start:  enginehouse engines serve {destination}")
    else:
        if manifest.image is not None:
            typer.echo(f"image:  {manifest.image}")
        for script in launch:
            typer.echo(f"start:  {script}")
    typer.echo(f"then:   enginehouse preflight {manifest.name} --server URL")


@engines.command()
def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An emulated engine, as `fetch` left it.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="HTTP. 0: any free one.")] = 0,
    log: Annotated[
        Path | None, typer.Option("--log", help="Log of the server. Default: serve/triton.log in FOLDER.")
    ] = None,
) -> None:
    """Serve a fetched emulated engine on this machine's Triton, on loopback, until Ctrl-C. Needs no GPU.

    Engines for GPUs are started by the scripts in serve/launch, in the image that `fetch` names.

    Example: enginehouse engines serve ./served/depot --port 8100
    """
    import asyncio

    from enginehouse.builder_errors import told
    from enginehouse.engine_serving import serve as served
    from enginehouse.local.triton import TritonPorts

    at = log or folder / "serve" / "triton.log"
    with told():
        asyncio.run(served(folder.resolve(), TritonPorts(http=port), at.resolve(), typer.echo))


@engines.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A packaged engine.")],
    store: Store = None,
    config: ConfigFile = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Put a packaged engine into the store, and its record into the registry where a gateway is known.

    Example: enginehouse engines publish ./packages/llama-3-8b-4f2a91c0d7e3
    """
    import asyncio

    from engine_builder.package import engine_of, list_published, verify
    from engine_builder.package import publish as published
    from enginehouse.builder_errors import told
    from enginehouse.engine_places import EnginePlaces
    from enginehouse.engine_records import known_if_any, put
    from enginehouse.errors import CommandError
    from enginehouse.interrupted import says_what_is_left
    from enginehouse.preflighting import maybe_located

    places = EnginePlaces.find(config, state_dir)
    with told(), says_what_is_left(lambda: "nothing was published"):
        manifest, flaws = verify(folder, places.trust)
        if flaws:
            raise CommandError(f"{flaws[0].path} is {flaws[0].what}", "package the engine anew")
        at = published(folder, store or places.store)
        engine = engine_of(next(one for one in list_published(store or places.store) if one.url == at))
    typer.echo(f"{manifest.name} is at {at}")
    connection = maybe_located(url, key, state_dir)
    with says_what_is_left(lambda: "the registry may lack its record; publishing it again adds it"):
        known = asyncio.run(known_if_any(connection))
        if known is None or connection is None:
            typer.echo("note: no gateway was asked, so it is not in the registry", err=True)
        elif engine.name in known.engines:
            typer.echo("the registry has it already")
        else:
            asyncio.run(put(connection, engine))
            typer.echo("its record is in the registry")


@engines.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove them. Default: only say which.")] = False,
    keep_days: Annotated[
        float | None,
        typer.Option("--keep-days", min=0, help="Younger ones stay. Default: the setting engines.keep_days."),
    ] = None,
    store: Store = None,
    config: ConfigFile = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Remove engines of the store that no deployment names, and what uploads that were cut off left behind.

    Examples:

      enginehouse engines gc

      enginehouse engines gc --delete --keep-days 30
    """
    import asyncio
    import datetime

    from engine_builder.package import list_published, remove
    from engine_builder.package.garbage import collect
    from engine_builder.package.store import leftovers, remove_leftover
    from enginehouse.builder_errors import told
    from enginehouse.connection import locate
    from enginehouse.engine_places import EnginePlaces
    from enginehouse.engine_records import forget, known

    places = EnginePlaces.find(config, state_dir)
    connection = locate(url, key, state_dir)
    registry = asyncio.run(known(connection))
    days = places.config.keep_days if keep_days is None else keep_days
    referred = {one.engine for one in registry.deployments if one.engine is not None}
    with told():
        at = store or places.store
        verdicts = collect(list_published(at), referred, datetime.datetime.now(datetime.UTC), days)
        stale = leftovers(at)
        for verdict in verdicts:
            name = verdict.engine.manifest.name
            done = "kept" if not verdict.removed else "removed" if delete else "would be removed"
            typer.echo(f"{name}: {done}: {verdict.reason}")
            if verdict.removed and delete:
                asyncio.run(forget(connection, name))
                remove(verdict.engine.url)
        for path in stale:
            typer.echo(f"{path}: {'removed' if delete else 'would be removed'}: a copy that was cut off")
            if delete:
                remove_leftover(path)
    if not delete:
        typer.echo("nothing was removed; --delete does it", err=True)


@engines.command()
def keygen(
    path: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Default: the setting engines.signing_key.")
    ] = None,
    config: ConfigFile = None,
    state_dir: StateDirectory = None,
) -> None:
    """Make a key that engines are signed by; others trust it by its public half.

    Example: enginehouse engines keygen release.pem
    """
    from engine_builder.package import Signer
    from engine_builder.package.signing import key_id, public_path
    from enginehouse.builder_errors import told
    from enginehouse.engine_places import EnginePlaces

    at = path or EnginePlaces.find(config, state_dir).signing_key
    with told():
        signer = Signer.generate()
        signer.save(at)
    typer.echo(f"key {key_id(signer.public)}: {at}")
    typer.echo(f"for engines.trusted_keys of others: {public_path(at)}")


def _published(name: str, store: str | None, places: EnginePlaces) -> Published:
    """An engine of the store by its name. Raises CommandError."""
    from engine_builder.package import list_published
    from enginehouse.errors import CommandError

    at = store or places.store
    found = [one for one in list_published(at) if one.manifest.name == name]
    if not found:
        raise CommandError(f"{at} has no engine {name!r}", "`enginehouse engines list` shows what it has")
    return found[0]

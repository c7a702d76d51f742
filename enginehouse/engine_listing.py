"""How engines and what was found about them are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine_builder.package import Manifest, Published
from enginehouse.engine_records import Known
from model_registry.engines import Check, Engine, PreflightRecord


def engines_table(published: Sequence[Published], known: Known | None) -> RenderableType:
    """One row an engine of the store or the registry, with its preflight and its deployments."""
    engines = {} if known is None else known.engines
    names = sorted({one.manifest.name for one in published} | engines.keys())
    if not names:
        return Text("no engines")
    by_name = {one.manifest.name: one.manifest for one in published}
    table = Table(box=None, pad_edge=False)
    for column in (
        "name",
        "lane",
        "runtime",
        "version",
        "gpu",
        "precision",
        "built",
        "preflight",
        "deployments",
    ):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for name in names:
        table.add_row(name, *_facts(by_name.get(name), engines.get(name)), *_uses(name, known))
    return table


def _facts(manifest: Manifest | None, engine: Engine | None) -> Iterable[str]:
    source = manifest or engine
    if source is None:
        return ("",) * 6
    precision = manifest.spec.precision if manifest is not None else engine.precision if engine else None
    return (
        source.lane,
        source.runtime,
        source.version,
        f"{source.gpus} x {source.gpu_class}",
        precision or "",
        f"{source.built_at:%Y-%m-%d %H:%M}",
    )


def _uses(name: str, known: Known | None) -> tuple[str, str]:
    if known is None:
        return "?", "?"
    engine = known.engines.get(name)
    if engine is None:
        return "not registered", ""
    return _preflight(engine.preflight), ", ".join(one.name for one in known.of(name))


def _preflight(record: PreflightRecord | None) -> str:
    if record is None:
        return "never"
    return f"{'passed' if record.passed else 'failed'} {record.at:%Y-%m-%d %H:%M}"


def checks_table(checks: Sequence[Check]) -> RenderableType:
    """One row a check; of those that failed, below it what to do."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    for check in checks:
        mark = Text("✓", "green") if check.passed else Text("✗", "bold red")
        found: RenderableType = Text(check.detail)
        if check.remedy:
            found = Group(found, Text(f"→ {check.remedy}", "bold"))
        table.add_row(mark, check.name, found)
    return table


def verdict(checks: Sequence[Check], asked_server: bool) -> str:
    """The whole in one line."""
    failed = [check.name for check in checks if not check.passed]
    if failed:
        return f"failed: {len(failed)} of {len(checks)} checks ({', '.join(failed)})"
    where = "files and server" if asked_server else "files; no server was asked"
    return f"passed: {len(checks)} checks of {where}"

"""Load-test files: results that are kept, and where."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine_builder.loadtest.outcomes import Interval, Outcome, Run, Targets, figures
from enginehouse.errors import CommandError
from enginehouse.local.state_dir import default_state_dir
from enginehouse.targets import Target, engine_of
from enginehouse.written import WRONG_SHAPE, why_wrong, write_text

VERSION = 1


class Level(NamedTuple):
    """One target's run at one rate."""

    rate: float
    run: Run


class Result(NamedTuple):
    """A load test of one target."""

    target: str
    driver: str
    at: str
    """When, ISO 8601."""
    targets: Targets
    workload: str
    """The requests, in words; results of different ones are not compared."""
    levels: Sequence[Level]

    def as_dict(self) -> dict[str, Any]:
        """With the figures for readers, and with every request, from which they are made again."""
        return {
            "enginehouse_loadtest": VERSION,
            "target": self.target,
            "driver": self.driver,
            "at": self.at,
            "targets": self.targets._asdict(),
            "workload": self.workload,
            "levels": [
                {
                    "rate": one.rate,
                    "figures": {name: _told(value) for name, value in figures(one.run, self.targets).items()},
                    "span_s": one.run.span_s,
                    "outcomes": [_rounded(outcome) for outcome in one.run.outcomes],
                }
                for one in self.levels
            ],
        }


def now() -> str:
    """ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read(path: Path) -> Result:
    """Raises CommandError where it is not there or not a result."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = fields.get("result", fields)
        if fields["enginehouse_loadtest"] != VERSION:
            raise ValueError(f"version {fields['enginehouse_loadtest']} is not {VERSION}")
        return Result(
            fields["target"],
            fields["driver"],
            fields["at"],
            Targets(**fields["targets"]),
            fields["workload"],
            [_level(one) for one in fields["levels"]],
        )
    except OSError as error:
        raise CommandError(
            f"--baseline {path}: {error.strerror}.", "Name a file that can be read."
        ) from error
    except WRONG_SHAPE as error:
        raise CommandError(
            f"--baseline {path}: is not a result of `enginehouse loadtest`: {why_wrong(error)}",
            "name a file that --out or --save has written",
        ) from error


async def save(target: Target, result: Result) -> Path:
    """Keep it with the target's engine, beside its published folder; else in the state directory."""
    engine = await engine_of(target)
    url = "" if engine is None else str(engine["url"]).removeprefix("file://")
    if url and "://" not in url and Path(url).is_dir():
        folder = Path(f"{url.rstrip('/')}.results")  # beside it: what is in it is signed
    else:
        name = target.name if engine is None else str(engine["name"])
        folder = default_state_dir() / "results" / re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    path = folder / f"loadtest-{re.sub('[^0-9]', '', result.at)[:14]}.json"
    write_text(path, json.dumps(result.as_dict()), "--save")
    return path


def _level(fields: Mapping[str, Any]) -> Level:
    outcomes = [Outcome(*one) for one in fields["outcomes"]]
    return Level(fields["rate"], Run(outcomes, fields["span_s"]))


def _told(one: Interval) -> list[float | None]:
    return [None if value != value else float(f"{value:.6g}") for value in one]


def _rounded(one: Outcome) -> list[Any]:
    return [round(value, 6) if isinstance(value, float) else value for value in one]

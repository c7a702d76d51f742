"""Rollouts through the admin API: begun, looked at, and told what is wanted of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from controller.rollouts.facts import facts_of
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from enginehouse.manifests import ManifestFile, apply_files
from enginehouse.objects import fetch
from model_registry.entities import Deployment
from model_registry.kinds import decode
from model_registry.manifests import to_yaml
from model_registry.rollouts import ACTIVE, FINAL, CanaryStep, Rollout, RolloutStatus, ShadowPlan, Wanted
from model_registry.snapshot import Snapshot, Stored

POLL_S = 1.0
AWAY_S = 60.0
LEFT_ALONE_S = 15.0
"""A leader writes every two seconds, and another one takes over within `controller.leadership_ttl_s`."""


class Progress(NamedTuple):
    """A rollout, and how far it is."""

    rollout: Rollout
    status: RolloutStatus | None
    """None: no controller has looked at it yet."""
    note: str | None = None
    """Why this may be out of date; None where it is not."""

    @property
    def phase(self) -> str:
        """Of the present run."""
        status = self.status
        return "pending" if status is None or status.run != self.rollout.run else status.phase

    @property
    def over(self) -> bool:
        return self.phase in FINAL


def steps_of(text: str, samples: int | None, seconds: float | None) -> tuple[CanaryStep, ...]:
    """Steps as a command takes them: `1,5,25`, in percent. Raises CommandError."""
    more: dict[str, Any] = {} if samples is None else {"min_samples": samples}
    more |= {} if seconds is None else {"min_s": seconds}
    try:
        return tuple(
            CanaryStep(share=float(part.strip().rstrip("%")) / 100, **more) for part in text.split(",")
        )
    except ValueError as error:
        raise CommandError(
            f"--steps {text!r} is not a list of percentages",
            "write shares above 0 and below 100, as 1,5,25,50",
        ) from error


async def start(
    connection: Connection,
    model: str,
    candidate: str,
    stable: str | None,
    name: str | None,
    changes: Mapping[str, Any],
) -> Rollout:
    """Begin a rollout; one of that name which has ended begins anew. Raises CommandError."""
    registry = await _registry(connection)
    found = {one.name: one for one in registry.deployments.get(model, ())}
    stable = stable or (_only_other(model, found, found[candidate]) if candidate in found else candidate)
    for one in (candidate, stable):
        if one not in found:
            names = ", ".join(sorted(found)) or "none"
            raise CommandError(
                f"the model {model!r} has no deployment {one!r}",
                f"its deployments: {names}. Apply a candidate first, with weight 0",
            )
    for status in registry.rollout_statuses.values():
        if status.model == model and status.phase in ACTIVE and status.name in registry.rollouts:
            raise CommandError(
                f"the rollout {status.name!r} of {model!r} is under way; a model has one at a time",
                f"watch it (`enginehouse rollout status {status.name} --watch`) or abort it",
            )
    name = name or f"{stable}-to-{candidate}"
    known = registry.rollouts.get(name)
    run = 1 if known is None else known.run + 1
    fields = {"name": name, "model": model, "stable": stable, "candidate": candidate, "run": run, **changes}
    try:
        rollout = Rollout.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    refusal = facts_of(rollout, registry, begun=False).refusal
    if refusal is not None:
        raise CommandError(refusal)
    await _apply(connection, rollout)
    return rollout


async def _registry(connection: Connection) -> Snapshot:
    """What a rollout rests on, as the gateway knows it."""
    found: list[Stored] = []
    for kind in ("Model", "Deployment", "Endpoint", "Engine", "Rollout", "RolloutStatus"):
        found += [decode(kind, json.dumps(item)) for item in (await fetch(connection, kind)).items]
    return Snapshot.of(0, found)


def _only_other(model: str, found: Mapping[str, Deployment], candidate: Deployment) -> str:
    serving = [
        one.name
        for one in found.values()
        if one.name != candidate.name and one.profile == candidate.profile and one.weight > 0
    ]
    if len(serving) != 1:
        names = ", ".join(sorted(serving)) or "none"
        raise CommandError(
            f"which deployment of {model!r} is to be replaced cannot be told: of the profile "
            f"{candidate.profile!r} and with a weight, beside the candidate: {names}",
            "name it with --stable",
        )
    return serving[0]


async def rollouts(connection: Connection) -> list[Rollout]:
    """All, by name."""
    return [Rollout.model_validate(item) for item in (await fetch(connection, "rollout")).items]


async def progress(connection: Connection, name: str) -> Progress:
    """One rollout. Raises ApiError where there is none."""
    known = await fetch(connection, "rollout", name)
    rollout = Rollout.model_validate(known.items[0])
    try:
        found = (await fetch(connection, "rolloutstatus", name)).items[0]
    except ApiError as error:
        if error.status != 404:
            raise
        return Progress(rollout, None, known.note)
    status = RolloutStatus.model_validate(found)
    return Progress(rollout, status, known.note or _left_alone(status, time.time()))


def _left_alone(status: RolloutStatus, now: float) -> str | None:
    """That no controller looks at it, where that is so; `now` in Unix seconds."""
    if status.phase not in ACTIVE or now - status.looked_at < LEFT_ALONE_S:
        return None
    at = time.strftime("%H:%M:%S", time.localtime(status.looked_at))
    return f"no controller has looked at it since {at}: the share stays as it is until one runs"


async def the_one(connection: Connection, name: str | None) -> str:
    """`name`, or the only rollout that is not over. Raises CommandError."""
    if name is not None:
        return name
    known = [await progress(connection, one.name) for one in await rollouts(connection)]
    going = [one.rollout.name for one in known if not one.over]
    if len(going) != 1:
        names = ", ".join(sorted(going or [one.rollout.name for one in known])) or "none"
        raise CommandError("which rollout is meant cannot be told", f"name it; there are: {names}")
    return going[0]


async def want(connection: Connection, name: str, wanted: Wanted) -> Progress:
    """Tell the controller what is wanted of a rollout. Raises CommandError for one that is over."""
    known = await progress(connection, name)
    if known.over:
        raise CommandError(
            f"the rollout {name!r} is over: {known.phase}",
            f"begin another with `enginehouse rollout start --model {known.rollout.model} ...`",
        )
    await _apply(connection, known.rollout.model_copy(update={"wanted": wanted}))
    return await progress(connection, name)


async def watched(connection: Connection, name: str) -> AsyncIterator[Progress]:
    """How it goes on, once a second, to its end.

    Raises ApiError when no gateway has answered for `AWAY_S`; one may be started anew meanwhile.
    """
    known, away_s = await progress(connection, name), 0.0
    while True:
        yield known
        if known.over:
            return
        await asyncio.sleep(POLL_S)
        try:
            known, away_s = await progress(connection, name), 0.0
        except ApiError as error:
            away_s += POLL_S
            if (error.status is not None and error.status != 503) or away_s >= AWAY_S:
                raise
            known = known._replace(note=f"{error}; this is what was last seen")


async def _apply(connection: Connection, rollout: Rollout) -> None:
    await apply_files(connection, [ManifestFile("rollout", to_yaml([rollout]))], dry_run=False)


def shadow_plan(share: float | None, seconds: float | None, samples: int | None) -> ShadowPlan:
    """As built in, but for what is given."""
    given = {"share": share, "min_s": seconds, "min_samples": samples}
    return ShadowPlan.model_validate({field: value for field, value in given.items() if value is not None})

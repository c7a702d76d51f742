"""What `enginehouse replay --controller` does: a scaled deployment, a trace, and ways to size its fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console

from controller.replay.comparison import Comparison, compare
from controller.replay.fluid import Engines
from controller.replay.report import printed, write
from controller.replay.traffic import Traffic, has_rates, of_requests, read_rates
from controller.scaling.capacity import Capacity, Lengths, capacity_of, lengths_of
from enginehouse.errors import CommandError
from model_registry.entities import Deployment, Model, Scaling
from model_registry.errors import ManifestErrors
from model_registry.knobs import knobs_of
from model_registry.manifests import parse_manifests
from model_registry.pools import DryRunActuator, Pool
from model_registry.snapshot import Snapshot
from router.replay.workload import TraceError, bundled_path, read


class ScalingAsked(NamedTuple):
    """The command's options."""

    spec: Path
    trace: Path | None
    rate: float | None
    """Requests per second, in the mean."""
    days: float | None
    cold_starts_s: tuple[int, ...]
    """Empty: the deployment's."""
    seeds: int
    out: Path | None


def show_scaling(asked: ScalingAsked) -> None:
    """Replay, and print. Raises CommandError."""
    deployment, scaling = read_scaled(asked.spec)
    try:
        groups = [list(_runs(asked, deployment, scaling, cold)) for cold in _cold_starts_s(asked, scaling)]
    except TraceError as error:
        raise CommandError(str(error)) from error
    Console().print(printed(groups))
    if asked.out is None:
        return
    try:
        write([one for group in groups for one in group], asked.out)
    except OSError as error:
        raise CommandError(
            f"--out {asked.out}: {error.strerror}.",
            "With --controller, name a directory that can be written.",
        ) from error


def read_scaled(path: Path) -> tuple[Deployment, Scaling]:
    """The Deployment with `scaling` in a manifest file. Raises CommandError, naming field and remedy."""
    try:
        text = path.read_text(encoding="utf-8")
        found = parse_manifests([(str(path), text)], registry=Snapshot.of(0, _stand_ins(text)))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--controller {path}: {error}.", "Name a manifest that can be read.") from error
    except ManifestErrors as error:
        raise CommandError(f"--controller {path}: {error}") from error
    scaled = [(one, one.scaling) for one in found if isinstance(one, Deployment) and one.scaling is not None]
    if len(scaled) != 1:
        count = "no Deployment" if not scaled else f"{len(scaled)} Deployments"
        raise CommandError(f"--controller {path}: has {count} with scaling.", "Name a file with exactly one.")
    return scaled[0]


def _stand_ins(text: str) -> Iterator[Model | Pool]:
    """For what the file's Deployments name: that need not stand in it."""
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError:
        return  # parse_manifests says where
    models, pools = set(), set()
    for one in documents:
        spec: Any = one.get("spec", one) if isinstance(one, Mapping) else None
        if isinstance(spec, Mapping) and isinstance(scaling := spec.get("scaling"), Mapping):
            models.add(str(spec.get("model")))
            pools.add(str(scaling.get("pool")))
    for name in models:
        yield Model.model_construct(name=name, context_length=1)
    for name in pools:
        yield Pool.model_construct(name=name, actuator=DryRunActuator(type="dry-run"))


def _cold_starts_s(asked: ScalingAsked, scaling: Scaling) -> tuple[int, ...]:
    return asked.cold_starts_s or (max(1, round(scaling.cold_start_s)),)


def _runs(
    asked: ScalingAsked, deployment: Deployment, scaling: Scaling, cold_start_s: int
) -> Iterator[Comparison]:
    for seed in range(1, asked.seeds + 1):
        traffic, capacity, request_s = _traffic(asked, deployment, seed)
        engines = Engines(
            cold_start_s,
            max(1, round(capacity.wait_s)),
            capacity.batch * capacity.request_s,
            request_s,
            scaling.min_replicas,
            scaling.max_replicas,
        )
        yield compare(traffic, engines, seed)


def _traffic(asked: ScalingAsked, deployment: Deployment, seed: int) -> tuple[Traffic, Capacity, float]:
    """With what a replica does of it, and the mean work of a request."""
    path = asked.trace or bundled_path("azure")
    knobs = knobs_of(deployment.profile)
    if has_rates(path):
        capacity = capacity_of(deployment, knobs, lengths_of(deployment.card))
        rates = read_rates(path)
        scale = 1.0 if asked.rate is None else asked.rate / float(rates.each.mean())
        traffic = rates.traffic(seed, capacity.request_s, scale, asked.days)
        return traffic, capacity, capacity.request_s
    workload = read(path)
    count = len(workload.requests)
    prompts, answers = (
        sum(one.prompt_tokens for one in workload.requests) / count,
        sum(one.output_tokens for one in workload.requests) / count,
    )
    capacity = capacity_of(deployment, knobs, Lengths(prompts, answers))
    scale = 1.0 if asked.rate is None else asked.rate / workload.rate
    traffic = of_requests(workload, capacity.work_s, scale, seed, asked.days)
    return traffic, capacity, capacity.work_s(prompts, answers)

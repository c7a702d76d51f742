"""Targets: how soon first tokens and the ones after them are to come, and who says so. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from model_registry.entities import Deployment
from model_registry.knobs import Knobs


class Target(NamedTuple):
    """What a time must keep below, in seconds, and who says so: `deployment`, `card` or `profile`."""

    seconds: float
    source: str


class Targets(NamedTuple):
    """Of first tokens, and of the time between tokens."""

    ttft: Target
    itl: Target


def targets_of(deployment: Deployment, knobs: Knobs) -> Targets:
    """Its scaling's, else those that its card's goodput was found for, else its profile's."""
    scaling = deployment.scaling
    goodput = None if deployment.card is None else deployment.card.goodput
    ttft, itl = Target(knobs.ttft_target_s, "profile"), Target(knobs.itl_target_s, "profile")
    if goodput is not None:
        ttft, itl = Target(goodput.ttft_s, "card"), Target(goodput.itl_s, "card")
    if scaling is not None and scaling.ttft_s is not None:
        ttft = Target(scaling.ttft_s, "deployment")
    if scaling is not None and scaling.itl_s is not None:
        itl = Target(scaling.itl_s, "deployment")
    return Targets(ttft, itl)


def strictest(deployments: Iterable[Deployment], knobs: Knobs) -> Targets:
    """Of those with `scaling`, which share one load: what its requests are held to.

    The profile's, where none of them says anything.
    """
    each = [targets_of(one, knobs) for one in deployments if one.scaling is not None]
    profile = Targets(Target(knobs.ttft_target_s, "profile"), Target(knobs.itl_target_s, "profile"))
    ttfts = [one.ttft for one in each if one.ttft.source != "profile"]
    itls = [one.itl for one in each if one.itl.source != "profile"]
    return Targets(min(ttfts, default=profile.ttft), min(itls, default=profile.itl))

"""Carded: the deployment that a card is made of, and the card that gateways have learned of it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from enginehouse.api import AdminClient
from enginehouse.card_listing import Told, learned
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from model_registry.cards import GoodputCard
from model_registry.entities import Deployment, Endpoint, Model, Profile
from model_registry.knobs import Knobs, knobs_of
from router.goodput import Ask, figures, forecast


class Subject(NamedTuple):
    """What is measured."""

    name: str
    """As clients ask for it."""
    context_length: int
    deployment: Deployment
    endpoints: list[Endpoint]
    knobs: Knobs
    gpu_class: str


async def find(
    connection: Connection, asked: str, named: str | None = None, gpu_class: str | None = None
) -> Subject:
    """What the registry knows of the one deployment behind `MODEL[:profile]`. Raises CommandError.

    `named`: what it must be called.
    """
    name, _, profile = asked.partition(":")
    async with AdminClient(connection) as admin:
        found = (await admin.get(f"objects/Model/{quote(name)}"))["object"]
        model = Model.model_validate(found)
        listed = (await admin.get("objects/Endpoint"))["items"]
        deployments = (await admin.get("objects/Deployment"))["items"]
        profiles = {item["name"]: item for item in (await admin.get("objects/Profile"))["items"]}
    profile = profile or model.default_profile
    ready = [Endpoint.model_validate(item) for item in listed if _serves(item, name, profile)]
    serving = sorted({one.deployment for one in ready})
    if not serving:
        raise CommandError(
            f"no endpoint of {name} is ready under the profile {profile!r}",
            "`enginehouse get endpoints` says which there are; name its profile: -m MODEL:PROFILE",
        )
    if named not in (None, *serving):
        raise CommandError(
            f"the deployment {named!r} does not serve {name} under the profile {profile!r}",
            f"these do: {', '.join(serving)}",
        )
    if len(serving) > 1:
        raise CommandError(
            f"{name}:{profile} is served by {', '.join(serving)} together; a card is of one of them",
            "measure while the others have no ready endpoint, or give it a profile of its own",
        )
    if model.modality != "text":
        raise CommandError(f"{name} answers with vectors; a goodput card is of a model that writes text")
    deployment = Deployment.model_validate(next(one for one in deployments if one["name"] == serving[0]))
    gpu_class = gpu_class or deployment.labels.get("gpu_class")
    if gpu_class is None:
        raise CommandError(
            f"on which GPUs {deployment.name} runs is not known",
            "say so: --gpu-class h100-sxm (or cpu), or give the deployment the label gpu_class",
        )
    knobs = Profile.model_validate(profiles[profile]) if profile in profiles else knobs_of(profile)
    return Subject(f"{name}:{profile}", model.context_length, deployment, ready, knobs, gpu_class)


def _serves(endpoint: dict[str, Any], model: str, profile: str) -> bool:
    return (endpoint["model"], endpoint["profile"], endpoint["state"]) == (model, profile, "ready")


def learned_card(
    subject: Subject,
    told: Sequence[Told],
    gpus: int,
    prompt_tokens: int,
    output_tokens: int,
    date: datetime.date,
) -> GoodputCard:
    """What forecasts have come to, and the goodput that this means. Raises CommandError without streams."""
    found = learned(one for one in told if one["deployment"] == subject.deployment.name)
    if found is None or not (found["ttft_seen"] and found["itl_seen"]):
        raise CommandError(
            f"no streams of {subject.deployment.name} have been seen yet",
            "let it serve some, or measure: `enginehouse card measure`",
        )
    made = GoodputCard(
        source="learned",
        gpu_class=subject.gpu_class,
        gpus=gpus,
        date=date,
        about=f"From {found['ttft_seen']} first tokens and {found['itl_seen']} answers; "
        "its goodput follows from its lines.",
        slots=subject.endpoints[0].max_concurrency,
        kv_tokens=subject.endpoints[0].server_schema.get("kv_tokens"),
        prefill_tokens_per_s=figures(found["prefill_tokens_per_s"]),
        overhead_s=figures(found["overhead_s"]),
        step_s=figures(found["step_s"]),
        step_per_request_s=figures(found["step_per_request_s"]),
    )
    knobs = subject.knobs
    ask = Ask(prompt_tokens, output_tokens, knobs.ttft_target_s, knobs.itl_target_s)
    return made.model_copy(update={"goodput": forecast(made, ask)})

"""Targets: what is measured: a model behind the gateway, or one of any OpenAI-speaking server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from enginehouse.api import AdminClient
from enginehouse.connection import Connection, locate, root_of
from enginehouse.errors import ApiError, CommandError
from model_registry.entities import Profile
from model_registry.knobs import Knobs, knobs_of

UPSTREAM_KEY_ENV = "OPENAI_API_KEY"


class Target(NamedTuple):
    """One thing to measure."""

    name: str
    """As it was asked for."""
    connection: Connection
    model: str
    """What requests name."""
    through_gateway: bool

    @property
    def profile(self) -> str:
        """Behind the colon; empty: none is named."""
        return self.model.partition(":")[2] if self.through_gateway else ""


def target(
    text: str,
    option: str,
    url: str | None = None,
    key: str | None = None,
    state_dir: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """`MODEL[:PROFILE]` through the gateway, or `URL#MODEL`. Raises CommandError.

    A server by URL gets the key of `OPENAI_API_KEY`, and never one of the gateway's.
    """
    if "://" not in text:
        if not text:
            raise CommandError(
                f"{option} names nothing", f"write {option} MODEL:PROFILE or {option} URL#MODEL"
            )
        return Target(text, locate(url, key, state_dir), text, through_gateway=True)
    root, _, model = text.partition("#")
    if not model:
        raise CommandError(
            f"{option} {text}: which model of that server is missing", f"write {option} {text}#MODEL"
        )
    upstream = Connection(root_of(root), environment.get(UPSTREAM_KEY_ENV), None)
    return Target(text, upstream, model, through_gateway=False)


async def knobs(of: Target) -> Knobs:
    """Of the profile that it is asked under, with its targets; where none can be told, of `balanced`."""
    if not of.through_gateway or of.connection.admin_key is None:
        return knobs_of(of.profile or "balanced")
    async with AdminClient(of.connection) as admin:
        model = await _registered(admin, f"Model/{quote(of.model.partition(':')[0])}")
        name = of.profile or (model or {}).get("default_profile", "balanced")
        profile = await _registered(admin, f"Profile/{quote(name)}")
    return knobs_of(name) if profile is None else Profile.model_validate(profile)


async def tokenizer_folder(of: Target) -> str | None:
    """Where the registry says that its tokenizer is."""
    if not of.through_gateway or of.connection.admin_key is None:
        return None
    async with AdminClient(of.connection) as admin:
        model = await _registered(admin, f"Model/{quote(of.model.partition(':')[0])}")
    return None if model is None else model.get("tokenizer")


async def engine_of(of: Target) -> dict[str, Any] | None:
    """The registry's engine that its one deployment has loaded; None where there is none, or several."""
    if not of.through_gateway or of.connection.admin_key is None:
        return None
    async with AdminClient(of.connection) as admin:
        model = await _registered(admin, f"Model/{quote(of.model.partition(':')[0])}")
        if model is None:
            return None
        asked = model["name"], of.profile or model["default_profile"]
        deployments = (await admin.get("objects/Deployment"))["items"]
        engines = {one["engine"] for one in deployments if (one["model"], one["profile"]) == asked}
        if len(engines) != 1 or (name := engines.pop()) is None:
            return None
        return await _registered(admin, f"Engine/{quote(name)}")


async def _registered(admin: AdminClient, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = (await admin.get(f"objects/{path}"))["object"]
    except ApiError as error:
        if error.status in {403, 404}:
            return None
        raise
    return found

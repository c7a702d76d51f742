"""Readiness of a local stack: every model has answered through the gateway; then the ready file says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from enginehouse.connection import Connection
from enginehouse.errors import ProcessError
from enginehouse.local.model_servers import ModelServers
from enginehouse.local.stack import LocalStack
from enginehouse.local.state_dir import Keys, StateDir
from model_registry.entities import Modality

POLL_S = 0.1
_EASY: Mapping[Modality, tuple[str, Mapping[str, Any]]] = {
    "text": ("/chat/completions", {"max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}),
    "embedding": ("/embeddings", {"input": "Hello"}),
}
"""What every model can be asked, by what it does."""
MODELS_READY_TIMEOUT_S = 120.0


def names_to_ask(stack: LocalStack) -> dict[str, Modality]:
    """Each model under each profile that it is deployed with, and each adapter, as a client would name it;
    and what it does."""
    modalities = {model.name: model.modality for model in stack.models}
    names = {
        f"{deployment.model}:{deployment.profile}": modalities[deployment.model]
        for deployment in stack.deployments
    }
    names |= {f"{adapter.model}+{adapter.name}": modalities[adapter.model] for adapter in stack.adapters}
    return dict(sorted(names.items()))


async def each_answers(connection: Connection, names: Mapping[str, Modality]) -> None:
    """Return when every name has answered with a token or a vector.

    Raises ProcessError with the last refusal of one that does not.
    """
    headers = {"Authorization": f"Bearer {connection.api_key}"}
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for name, modality in names.items():
                group.create_task(_answers(session, connection.base_url, name, modality))
    except* ProcessError as failures:
        raise failures.exceptions[0] from None


async def _answers(session: aiohttp.ClientSession, base_url: str, name: str, modality: Modality) -> None:
    deadline_s = time.monotonic() + MODELS_READY_TIMEOUT_S
    while (refusal := await _refusal(session, base_url, name, modality)) is not None:
        if time.monotonic() > deadline_s:
            raise ProcessError(
                f"{name} does not answer after {MODELS_READY_TIMEOUT_S:g} s", f"the gateway says: {refusal}"
            )
        await asyncio.sleep(POLL_S)


async def _refusal(
    session: aiohttp.ClientSession, base_url: str, name: str, modality: Modality
) -> str | None:
    path, body = _EASY[modality]
    try:
        async with session.post(base_url + path, json={"model": name, **body}) as response:
            return None if response.status == 200 else (await response.text())[:400]
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


def describe_ready(
    connection: Connection,
    keys: Keys,
    redis_url: str,
    servers: ModelServers,
    stack: LocalStack,
    state: StateDir,
    pids: dict[str, int],
) -> dict[str, Any]:
    """What the ready file holds: all that a client, an operator or a test needs to find the stack."""
    return {
        "base_url": connection.base_url,
        "admin_url": connection.admin_url,
        "metrics_url": f"{connection.root}/metrics",
        "api_key": keys.api_key,
        "admin_key": keys.admin_key,
        "redis_url": redis_url,
        "triton": servers.addresses(),
        "models": [model.name for model in stack.models],
        "model_servers": servers.said_as,
        "state_dir": str(state.root),
        "trace_file": str(state.traces),
        "pids": pids,
    }

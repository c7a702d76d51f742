"""Readiness of a local stack: every model has answered through the gateway; then the ready file says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

from enginehouse.connection import Connection
from enginehouse.errors import ProcessError
from enginehouse.local.model_servers import ModelServers
from enginehouse.local.stack import LocalStack
from enginehouse.local.state_dir import Keys, StateDir

POLL_S = 0.1
MODELS_READY_TIMEOUT_S = 120.0


def names_to_ask(stack: LocalStack) -> list[str]:
    """Each model under each profile that it is deployed with, and each adapter, as a client would name it."""
    models = {f"{deployment.model}:{deployment.profile}" for deployment in stack.deployments}
    return sorted(models | {f"{adapter.model}+{adapter.name}" for adapter in stack.adapters})


async def each_answers(connection: Connection, names: Sequence[str]) -> None:
    """Return when every name has answered one token; raises ProcessError with the last refusal of one."""
    headers = {"Authorization": f"Bearer {connection.api_key}"}
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for name in names:
                group.create_task(_answers(session, connection.base_url, name))
    except* ProcessError as failures:
        raise failures.exceptions[0] from None


async def _answers(session: aiohttp.ClientSession, base_url: str, name: str) -> None:
    deadline_s = time.monotonic() + MODELS_READY_TIMEOUT_S
    while (refusal := await _refusal(session, base_url, name)) is not None:
        if time.monotonic() > deadline_s:
            raise ProcessError(
                f"{name} does not answer after {MODELS_READY_TIMEOUT_S:g} s", f"the gateway says: {refusal}"
            )
        await asyncio.sleep(POLL_S)


async def _refusal(session: aiohttp.ClientSession, base_url: str, name: str) -> str | None:
    body = {"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    try:
        async with session.post(f"{base_url}/chat/completions", json=body) as response:
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

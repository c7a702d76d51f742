"""Calls of the commands to a gateway: the admin API, and one streamed chat turn."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import aiohttp

from enginehouse.connection import Connection
from enginehouse.errors import ApiError

CONNECT_TIMEOUT_S = 5.0
ADMIN_TIMEOUT_S = 30.0
_TRIES_PER_WORKER = 8


class AdminClient:
    """The admin API of one gateway; use as `async with`."""

    def __init__(self, connection: Connection) -> None:
        if connection.admin_key is None:
            raise ApiError("no admin key is known", "give --key, or set ENGINEHOUSE_ADMIN_KEY")
        self._connection = connection
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {connection.admin_key}"},
            timeout=aiohttp.ClientTimeout(total=ADMIN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    async def __aenter__(self) -> AdminClient:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> Any:
        """JSON of a GET; `path` begins below the admin root."""
        return await self._call("GET", path)

    async def post(self, path: str, body: Any) -> Any:
        """JSON of a POST."""
        return await self._call("POST", path, body)

    async def delete(self, path: str) -> Any:
        """JSON of a DELETE."""
        return await self._call("DELETE", path)

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        if not {"", ".", ".."}.isdisjoint(path.partition("?")[0].split("/")):
            raise ApiError(f"{path!r} names nothing", "names begin and end with a letter or a digit")
        url = f"{self._connection.admin_url}/{path}"
        with _reachable(self._connection.root):
            async with self._session.request(method, url, json=body) as response:
                if response.status >= 400:
                    raise await _refusal(response)
                return await response.json() if response.content_length != 0 else None


async def ask_workers(
    connection: Connection, path: str, enough: Callable[[Any], bool] = lambda _: False
) -> list[Any]:
    """What each worker of the gateway answers to a GET; `enough`: one answer after which no other is needed.

    Each worker knows its own only, and which one answers is chance: connections are opened until all have.
    """
    told: dict[int, Any] = {}
    tries, workers = 0, 1
    while len(told) < workers and tries < _TRIES_PER_WORKER * workers:
        tries += 1
        async with AdminClient(connection) as client:
            answer = await client.get(path)
        workers = answer["workers"]
        told[answer["worker"]] = answer
        if enough(answer):
            break
    return list(told.values())


Event = dict[str, Any]


@asynccontextmanager
async def chat_stream(
    connection: Connection,
    body: dict[str, Any],
    on_decision: Callable[[str], None] | None = None,
    session: aiohttp.ClientSession | None = None,
) -> AsyncIterator[AsyncGenerator[Event]]:
    """The chunks of one streamed chat completion; leaving early closes the connection, which cancels it.

    `on_decision` is told where the request went: the value of `x-enginehouse-decision`. A `session` that is
    given stays open, and so do its connections between requests.
    """
    headers = {"Authorization": f"Bearer {connection.api_key}"} if connection.api_key else {}
    if on_decision is not None:
        headers["x-enginehouse-explain"] = "1"
    async with AsyncExitStack() as stack:
        if session is None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
        with _reachable(connection.root):
            async with session.post(
                f"{connection.base_url}/chat/completions",
                json={**body, "stream": True},
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
            ) as response:
                if response.status >= 400:
                    raise await _refusal(response)
                if on_decision is not None:
                    on_decision(response.headers.get("x-enginehouse-decision", ""))
                yield _events(response)


async def chat(connection: Connection, body: dict[str, Any], session: aiohttp.ClientSession) -> Event:
    """One chat completion, whole. Raises ApiError."""
    headers = {"Authorization": f"Bearer {connection.api_key}"} if connection.api_key else {}
    with _reachable(connection.root):
        async with session.post(
            f"{connection.base_url}/chat/completions", json=body, headers=headers
        ) as response:
            if response.status >= 400:
                raise await _refusal(response)
            found: Event = await response.json()
            return found


async def model_names(connection: Connection) -> list[str]:
    """Models of `/v1/models` that can be talked to."""
    headers = {"Authorization": f"Bearer {connection.api_key}"} if connection.api_key else {}
    timeout = aiohttp.ClientTimeout(total=ADMIN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        with _reachable(connection.root):
            async with session.get(f"{connection.base_url}/models") as response:
                if response.status >= 400:
                    raise await _refusal(response)
                listed = (await response.json())["data"]
                return [item["id"] for item in listed if item.get("modality", "text") == "text"]


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[Event]:
    async for line in response.content:
        data = line.decode().strip()
        if not data.startswith("data:"):
            continue
        payload = data.removeprefix("data:").strip()
        if payload == "[DONE]":
            return
        event: Event = json.loads(payload)
        if "error" in event:
            raise ApiError(f"the answer broke off: {event['error'].get('message', 'no reason given')}")
        yield event
    raise ApiError("the answer broke off: the connection ended before its end was sent")


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.text()
    try:
        error = json.loads(text)["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = text.strip()[:500] or response.reason or "no reason given"
    shown = message if response.status == HTTPStatus.BAD_REQUEST else f"{message} (HTTP {response.status})"
    return ApiError(shown, _remedy(response.status), response.status)


def _remedy(status: int) -> str | None:
    if status == 401:
        return "give the right key: --key, ENGINEHOUSE_API_KEY or ENGINEHOUSE_ADMIN_KEY"
    if status == 403:
        return "this key may not do that: an admin key is needed for the registry"
    if status == 503:
        return "`enginehouse get endpoints` says which servers are ready, the gateway's log what it lacked"
    return None


@contextmanager
def _reachable(root: str) -> Iterator[None]:
    """Turns failures of the connection into one sentence."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        raise ApiError(
            f"cannot reach the gateway at {root}", "is it running? start one with `enginehouse up`"
        ) from error
    except aiohttp.ClientError as error:
        raise ApiError(f"the connection to {root} failed: {error}") from error
    except TimeoutError as error:
        raise ApiError(f"the gateway at {root} did not answer in time") from error

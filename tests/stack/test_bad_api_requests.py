"""Thousands of generated bad requests of the Responses and Messages APIs at the live gateway: no 5xx."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice

import aiohttp
import msgspec
from anthropic.types import ErrorResponse

from tests.fuzz.bad_api_requests import RESPONSES, bad_api_requests
from tests.openai_schema import validate
from tests.stack.stack import Stack

COUNT = 2_000
CLIENTS = 16


async def test_2000_bad_requests(stack: Stack) -> None:
    """Each is answered by 4xx in its API's shape, or served where it hit nothing."""
    requests = islice(bad_api_requests(seed=20261126, model="house-chat"), COUNT)
    statuses: Counter[int] = Counter()
    failures: list[tuple[int, str, bytes, bytes]] = []

    async def work(session: aiohttp.ClientSession) -> None:
        for path, body in requests:
            async with session.post(f"{stack.origin}{path}", data=body) as answer:
                said = await answer.read()
                statuses[answer.status] += 1
                if answer.status >= 500 or b"Traceback" in said:
                    failures.append((answer.status, path, body, said))
                elif answer.status >= 400:
                    check_error(path, answer.status, said)

    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, headers=stack.headers) as session:
        await asyncio.gather(*(work(session) for _ in range(CLIENTS)))
    assert not failures, failures[:3]
    assert sum(statuses.values()) == COUNT
    assert statuses[400] > COUNT // 3
    assert statuses[200] > COUNT // 50
    assert stack.client().responses.create(model="house-chat", input="Hello", max_output_tokens=4).output
    assert "Traceback" not in stack.logs()


def check_error(path: str, status: int, said: bytes) -> None:
    body = msgspec.json.decode(said)
    if path == RESPONSES:
        validate("ErrorResponse", body)
    elif status != 413:  # whose type is documented, and not in the SDK's list
        ErrorResponse.model_validate({**body, "request_id": None})

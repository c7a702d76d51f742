"""10,000 generated bad requests at the live gateway: no 5xx, no traceback, and it serves as before."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice

import aiohttp

from tests.fuzz.bad_requests import BadRequest, bad_requests
from tests.openai_schema import validate
from tests.stack.stack import Stack

COUNT = 10_000
CLIENTS = 16


async def test_10000_bad_requests(stack: Stack) -> None:
    """Each is answered by 4xx in OpenAI's shape, or served where it hit nothing."""
    requests = islice(bad_requests(seed=20261123, model="house-chat"), COUNT)
    statuses: Counter[int] = Counter()
    failures: list[tuple[int, BadRequest, bytes]] = []

    async def work(session: aiohttp.ClientSession) -> None:
        for request in requests:
            headers = {**stack.headers, **request.headers}
            async with session.post(
                f"{stack.origin}{request.path}", data=request.body, headers=headers
            ) as answer:
                body = await answer.read()
                statuses[answer.status] += 1
                if answer.status >= 500 or b"Traceback" in body:
                    failures.append((answer.status, request, body))
                elif answer.status >= 400:
                    validate("ErrorResponse", await answer.json(content_type=None))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await asyncio.gather(*(work(session) for _ in range(CLIENTS)))
    assert not failures, failures[:3]
    assert sum(statuses.values()) == COUNT
    assert statuses[400] > COUNT // 2
    assert stack.client().chat.completions.create(
        model="house-chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert "Traceback" not in stack.logs()


async def test_bad_http(stack: Stack) -> None:
    """Below the API: heads, paths and methods."""
    async with aiohttp.ClientSession(headers=stack.headers) as session:
        cases = [
            ("GET", "/v1/chat/completions", {}, 405),
            ("POST", "/v1/chat/completions/", {}, 404),
            ("POST", "/nowhere", {}, 404),
            ("GET", "/v1/models/%00", {}, 404),
            ("GET", "/healthz", {"X-Long": "x" * 40_000}, 400),
            ("DELETE", "/v1/models", {}, 405),
        ]
        for method, path, headers, status in cases:
            async with session.request(method, stack.origin + path, headers=headers) as answer:
                assert answer.status == status, (method, path, await answer.text())
        async with session.post(
            f"{stack.base_url}/chat/completions", data=b"{" + b" " * (9 * 1024 * 1024)
        ) as answer:
            assert answer.status == 413
            validate("ErrorResponse", await answer.json())


async def test_a_body_that_is_not_what_its_head_says(stack: Stack) -> None:
    """Packed otherwise than announced."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=stack.headers, connector=connector) as session:
        for encoding in ("gzip", "deflate"):
            async with session.post(
                f"{stack.base_url}/chat/completions",
                data=b"not packed " * 300,
                headers={"Content-Encoding": encoding, "Content-Type": "application/json"},
            ) as answer:
                assert answer.status == 400
                validate("ErrorResponse", await answer.json(content_type=None))
    assert "Traceback" not in stack.logs()
    assert "Error handling request" not in stack.logs()

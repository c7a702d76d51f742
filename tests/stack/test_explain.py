"""Why a request went where it went: by header, by the admin API and by the command, over both workers."""

from __future__ import annotations

import subprocess

import aiohttp
import pytest

from tests.command_line import run_here
from tests.stack.stack import Stack

SECRET = "The password is swordfish."
ASK = {"model": "house-chat", "max_tokens": 4}


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_sees_the_decision_on_request(stack: Stack, stream: bool) -> None:
    """One header, with the answer's head; only where it is asked for."""
    asked = stack.client().chat.completions.with_raw_response.create(
        messages=[{"role": "user", "content": SECRET}],
        extra_headers={"x-enginehouse-explain": "1"},
        stream=stream,
        **ASK,
    )
    told = dict(part.partition("=")[::2] for part in asked.headers["x-enginehouse-decision"].split("; "))
    assert told["endpoint"].startswith("house-chat-")
    assert told["attempts"] == "1"
    assert float(told["wait_ms"]) >= 0
    assert {"policy", "reason"} <= told.keys()
    assert "swordfish" not in asked.headers["x-enginehouse-decision"]
    asked.parse()
    plain = stack.client().chat.completions.with_raw_response.create(
        messages=[{"role": "user", "content": SECRET}], stream=stream, **ASK
    )
    assert "x-enginehouse-decision" not in plain.headers


async def decisions(stack: Stack, query: str, admin: bool = True) -> tuple[int, dict[str, object]]:
    headers = stack.admin_headers if admin else stack.headers
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{stack.origin}/admin/v1/decisions{query}") as answer,
    ):
        return answer.status, await answer.json()


async def test_the_admin_api_lists_decisions_and_names_what_is_wrong(stack: Stack) -> None:
    for _ in range(8):
        stack.client().chat.completions.create(messages=[{"role": "user", "content": SECRET}], **ASK)
    status, told = await decisions(stack, "?model=house-chat&limit=2")
    assert status == 200
    assert told["workers"] == 2
    listed = told["decisions"]
    assert isinstance(listed, list)
    assert 1 <= len(listed) <= 2
    newest = listed[0]
    assert (newest["model"], newest["attempt"], newest["hedge"]) == ("house-chat", 1, False)
    assert newest["endpoint"] in [one["endpoint"] for one in newest["candidates"]]
    assert "swordfish" not in str(told)
    for query in ("?limit=0", "?limit=1001", "?limit=x", "?limit=99999999999"):
        status, told = await decisions(stack, query)
        assert status == 400
        assert told["error"]["param"] == "limit"  # type: ignore[index]
    assert (await decisions(stack, "", admin=False))[0] == 403


def explain(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    admin = {"ENGINEHOUSE_ADMIN_KEY": stack.ready["admin_key"]}
    return run_here("explain", "--url", stack.origin, *arguments, COLUMNS="250", **admin)


def test_the_command_finds_a_request_at_whichever_worker(stack: Stack) -> None:
    """By the id that the SDK's answer has; each of several, so that both workers are met."""
    for _ in range(4):
        answer = stack.client().chat.completions.create(messages=[{"role": "user", "content": SECRET}], **ASK)
        shown = explain(stack, answer.id)
        assert shown.returncode == 0, shown.stderr
        assert answer.id.removeprefix("chatcmpl-") in shown.stdout
        assert "chosen" in shown.stdout
    listed = explain(stack, "--model", "house-chat", "-n", "3")
    assert listed.returncode == 0
    assert 2 <= len(listed.stdout.splitlines()) <= 4


def test_a_request_that_nobody_knows_is_said_so(stack: Stack) -> None:
    shown = explain(stack, "chatcmpl-000000000000000000000000")
    assert shown.returncode != 0
    assert "no decision of this request is kept" in shown.stderr

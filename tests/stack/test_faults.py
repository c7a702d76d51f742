"""`kill -9` of a worker, of Triton, of Redis, each while 50 streams run: what the promises say happens."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass

import aiohttp
import msgspec
import pytest

from tests.stack.stack import Stack, wait_until

STREAMS = 50
TOKENS = 150
"""Of each; fifty together take several seconds for them, so that a blow comes in their midst."""


@dataclass
class Ending:
    """How one stream ended for its client."""

    text: str = ""
    tokens: int | None = None
    """`usage.completion_tokens`."""
    done: bool = False
    """`[DONE]` came."""
    finish: str | None = None
    error: str | None = None
    """Code of an error event or answer."""
    broken: bool = False
    """The connection ended within the answer."""

    @property
    def falsely_clean(self) -> bool:
        """It looks complete without its end."""
        return self.done and self.finish is None

    @property
    def silent(self) -> bool:
        """Neither a clean end nor a word of why."""
        return not self.done and self.error is None and not self.broken


async def stream(session: aiohttp.ClientSession, stack: Stack, model: str, begun: asyncio.Event) -> Ending:
    """One long stream, read to whatever end it has."""
    body = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 1.0,
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
    }
    if model == "depot-chat":
        del body["min_tokens"]
    ending = Ending()
    try:
        async with session.post(f"{stack.base_url}/chat/completions", json=body) as answer:
            if answer.status != 200:
                ending.error = (await answer.json())["error"]["code"]
                return ending
            async for line in answer.content:
                take(ending, line.strip())
                if ending.text:
                    begun.set()
    except aiohttp.ClientError:
        ending.broken = True
    finally:
        begun.set()
    return ending


def take(ending: Ending, line: bytes) -> None:
    if line == b"data: [DONE]":
        ending.done = True
    elif line.startswith(b"data: "):
        event = msgspec.json.decode(line[6:])
        if "error" in event:
            ending.error = event["error"]["code"]
        elif event.get("usage"):
            ending.tokens = event["usage"]["completion_tokens"]
        elif event["choices"]:
            ending.text += event["choices"][0]["delta"].get("content") or ""
            ending.finish = event["choices"][0]["finish_reason"] or ending.finish


async def while_streaming(stack: Stack, model: str, strike: object) -> list[Ending]:
    """Run the streams, strike when all have begun, and wait for every ending; nothing may hang."""
    begun = [asyncio.Event() for _ in range(STREAMS)]
    async with aiohttp.ClientSession(
        headers=stack.headers,
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=120),
    ) as session:
        tasks = [asyncio.create_task(stream(session, stack, model, event)) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun[: STREAMS // 2]))
        strike()  # type: ignore[operator]
        endings = await asyncio.gather(*tasks)
    assert not any(ending.falsely_clean for ending in endings)
    assert not any(ending.silent for ending in endings)
    return endings


def kill(*processes: object) -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]


async def answers_again(stack: Stack, model: str, timeout_s: float = 60) -> None:
    """The model serves again."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    async with aiohttp.ClientSession(headers=stack.headers) as session:
        while True:
            try:
                async with session.post(f"{stack.base_url}/chat/completions", json=body) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            assert asyncio.get_running_loop().time() < deadline, f"{model} does not answer again"
            await asyncio.sleep(0.1)


async def test_redis_killed_no_request_notices(stack: Stack) -> None:
    """Promise 3: every stream ends well, new requests are served meanwhile, and Redis comes back."""
    redis = stack.children("redis-server")
    assert len(redis) == 1
    endings = await while_streaming(stack, "house-chat", lambda: kill(*redis))
    assert all(ending.done and ending.finish == "length" for ending in endings)
    await answers_again(stack, "house-chat", 5)
    wait_until(lambda: stack.children("redis-server"), 30, "Redis runs again")


async def test_worker_killed_the_other_goes_on(stack: Stack) -> None:
    """Promise 5: streams of the other worker end well; the dead one's break visibly and it is replaced."""
    workers = stack.workers()
    assert len(workers) == 2
    supervisor = workers[0].parent()
    assert supervisor is not None
    assert supervisor.num_threads() == 1, "a lock that another thread held at a fork would stay held"
    endings = await while_streaming(stack, "house-chat", lambda: kill(workers[0]))
    well = [ending for ending in endings if ending.done and ending.finish == "length"]
    assert well
    assert all(ending.broken for ending in endings if ending not in well)
    await answers_again(stack, "house-chat", 5)
    wait_until(lambda: len(stack.workers()) == 2, 30, "two workers run again")


@pytest.mark.parametrize("model", ["house-chat:latency", "house-chat:throughput"])
async def test_triton_killed_token_streams_go_on_elsewhere(stack: Stack, model: str) -> None:
    """Promise 4: the model's other endpoint continues every stream, to its exact length."""
    await answers_again(stack, model)
    servers = stack.children("tritonserver", "--http-port")
    assert len(servers) == 2
    ports = {"house-chat:latency": 0, "house-chat:throughput": 1}
    port = stack.ready["triton"][ports[model]]["http"].rpartition(":")[2]
    victim = [server for server in servers if any(port in word for word in server.cmdline())]
    assert len(victim) == 1
    endings = await while_streaming(stack, model, lambda: kill(*victim))
    assert all(ending.done and ending.finish == "length" for ending in endings), [
        (e.error, e.broken) for e in endings if not e.done
    ]
    assert {ending.tokens for ending in endings} == {TOKENS}
    for again in (
        "house-chat:latency",
        "house-chat:throughput",
        "depot-chat",
        "siding-chat",
        "yard-chat",
        "kiosk-chat",
    ):
        await answers_again(stack, again)


async def test_triton_killed_text_streams_end_broken(stack: Stack) -> None:
    """Promise 4: a lane that cannot be continued ends with an error event, and serves again."""
    await answers_again(stack, "yard-chat")
    port = stack.ready["triton"][0]["http"].rpartition(":")[2]
    victim = [s for s in stack.children("tritonserver", "--http-port") if any(port in w for w in s.cmdline())]
    endings = await while_streaming(stack, "yard-chat", lambda: kill(*victim))
    broken = [ending for ending in endings if ending.text and ending.finish is None]
    assert broken, "every stream had ended before the blow"
    assert all(ending.error and not ending.done for ending in broken)
    await answers_again(stack, "yard-chat")


async def test_a_models_process_killed_inside_triton(stack: Stack) -> None:
    """Triton itself goes on and lets the streams hang; they go on elsewhere, and the process comes back."""
    await answers_again(stack, "house-chat:latency")
    stub = stack.children("triton_python_backend_stub", "servers/triton-0/tensorrt_llm/")
    assert len(stub) == 1
    endings = await while_streaming(stack, "house-chat:latency", lambda: kill(*stub))
    assert all(ending.done and ending.finish == "length" for ending in endings)
    await answers_again(stack, "house-chat:latency")
    await answers_again(stack, "yard-chat")
    wait_until(
        lambda: stack.children("triton_python_backend_stub", "servers/triton-0/tensorrt_llm/"),
        30,
        "the model's process runs again",
    )

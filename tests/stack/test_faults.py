"""`kill -9` of a worker, of Triton, of Redis, each while 50 streams run: what the promises say happens."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from bench.chaos import streams
from bench.chaos.streams import TOKENS, Ending
from tests.stack.stack import Stack, wait_until


async def while_streaming(stack: Stack, model: str, strike: Callable[[], None]) -> list[Ending]:
    """The streams' endings; nothing may hang, and none may look like what it is not."""
    endings = await streams.while_streaming(stack.base_url, stack.headers, model, strike)
    assert not any(ending.falsely_clean for ending in endings)
    assert not any(ending.silent for ending in endings)
    return endings


def kill(*processes: object) -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]


async def answers_again(stack: Stack, model: str, within_s: float = 60) -> None:
    """The model serves again."""
    await streams.answers_again(stack.base_url, stack.headers, model, within_s)


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

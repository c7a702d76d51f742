"""Blows: `kill -9` of each part while 50 streams run, and what their clients see of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from bench.build import BenchError
from bench.chaos.streams import TOKENS, Ending, answers_again, while_streaming
from bench.up import Up, wait_until

BACK_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Blow:
    """Who is killed, whose streams run meanwhile, and how they may end."""

    model: str
    victims: Callable[[Up], list[psutil.Process]]
    promise: str
    """As `docs/architecture.md` has it."""
    may_end: Callable[[Ending], bool]
    some: Callable[[Ending], bool] | None = None
    """At least one stream ends so; else the blow came too late."""


def _well(ending: Ending) -> bool:
    return ending.well and ending.tokens in (None, TOKENS)


def _broken(ending: Ending) -> bool:
    return ending.broken and ending.error is None


def _told(ending: Ending) -> bool:
    return ending.error is not None and not ending.done


BLOWS = {
    "redis": Blow(
        "house-chat", lambda up: up.find("redis-server"), "no request in flight or new notices", _well
    ),
    "controller": Blow(
        "house-chat", lambda up: up.find("enginehouse controller"), "no request notices", _well
    ),
    "worker": Blow(
        "house-chat",
        lambda up: up.workers()[:1],
        "the other worker's streams end well, the dead one's break visibly",
        lambda ending: _well(ending) or _broken(ending),
        _well,
    ),
    "triton": Blow(
        "house-chat:latency",
        lambda up: up.triton(0),
        "streams of token ids go on at another endpoint, to their exact length",
        _well,
    ),
    "model process": Blow(
        "house-chat:latency",
        lambda up: up.find("triton_python_backend_stub", "servers/triton-0/tensorrt_llm/"),
        "streams of token ids go on at another endpoint, though Triton lets them hang",
        _well,
    ),
    "triton, text": Blow(
        "yard-chat",
        lambda up: up.triton(0),
        "streams of text end with an error event, never with [DONE]",
        lambda ending: _well(ending) or _told(ending),
        _told,
    ),
}


async def blow(name: str, stack: Up) -> dict[str, Any]:
    """Strike once.

    Raises BenchError where there is nobody to strike, or who was killed does not come back.
    """
    one = BLOWS[name]
    await answers_again(stack.base_url, stack.headers, one.model)
    victims = one.victims(stack)
    if not victims:
        raise BenchError(f"{name}: found no process to kill")
    pids = {victim.pid for victim in victims}

    def strike() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    endings = await while_streaming(stack.base_url, stack.headers, one.model, strike)
    again_s = await answers_again(stack.base_url, stack.headers, one.model)
    back_s = wait_until(
        f"{name} runs again",
        lambda: len(fresh := one.victims(stack)) == len(pids) and not pids & {each.pid for each in fresh},
        BACK_WITHIN_S,
    )
    return {
        "promise": one.promise,
        "streams": len(endings),
        "well": sum(map(_well, endings)),
        "told": sum(map(_told, endings)),
        "broken": sum(map(_broken, endings)),
        "silent": sum(ending.silent for ending in endings),
        "falsely_clean": sum(ending.falsely_clean for ending in endings),
        "longest_gap_s": round(max(ending.longest_gap_s for ending in endings), 2),
        "answers_after_s": round(again_s, 2),
        "back_after_s": round(back_s, 2),
        "ok": all(map(one.may_end, endings)) and (one.some is None or any(map(one.some, endings))),
    }

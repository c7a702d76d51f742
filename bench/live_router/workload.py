"""Workload: conversations over shared system prompts, as token ids for gateways and as a trace for replay.

Every turn's prompt is the one before it and some more tokens, so that where it goes decides how much of it is
computed again. Arrival times are fixed in advance (an open loop): a policy that is slow does not get fewer
requests. The same seed makes the same conversations; `nonce` makes all prompts unlike those of any other run,
so that nothing is found that an earlier run left in a cache.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from bench.live_router.engines import BLOCK_TOKENS
from router.replay.workload import Request, Workload

FIRST_ID, IDS = 300, 960
"""Token ids that prompts are made of: none that means something to the tokenizer."""


class Shape(NamedTuple):
    """What conversations are like."""

    systems: int = 6
    """System prompts that conversations share."""
    popular: float = 6.0
    """How many times as many conversations have the first one as any other."""
    system_tokens: int = 320
    turns: tuple[int, int] = (4, 8)
    turn_tokens: tuple[int, int] = (60, 180)
    """What each turn adds to the prompt: the answer before it, and the question."""
    think_s: tuple[float, float] = (1.5, 4.0)
    output_tokens: tuple[int, int] = (4, 12)


class Turn(NamedTuple):
    """One request."""

    at_s: float
    prompt_ids: tuple[int, ...]
    output_tokens: int


def conversations(seconds: float, rate: float, seed: int, nonce: int, shape: Shape = Shape()) -> list[Turn]:  # noqa: B008
    """Turns of `seconds` at about `rate` requests per second, in the order of their arrival."""
    random, ids = Random(f"conversations {seed}"), Random(f"ids {seed} {nonce}")

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(ids.choices(range(FIRST_ID, FIRST_ID + IDS), k=count))

    systems = [tokens(shape.system_tokens) for _ in range(shape.systems)]
    mean_turns = sum(shape.turns) / 2
    longest_s = shape.turns[1] * shape.think_s[1]
    turns: list[Turn] = []
    begins_s = -longest_s  # those that began before the first second are in their later turns by then
    while begins_s < seconds:
        begins_s += random.expovariate(rate / mean_turns)
        at_s, prompt = begins_s, random.choices(systems, [shape.popular] + [1.0] * (shape.systems - 1))[0]
        for _ in range(random.randint(*shape.turns)):
            prompt += tokens(random.randint(*shape.turn_tokens))
            if 0 <= at_s < seconds:
                turns.append(Turn(at_s, prompt, random.randint(*shape.output_tokens)))
            at_s += random.uniform(*shape.think_s)
    return sorted(turns, key=lambda turn: turn.at_s)


def trace(turns: list[Turn]) -> Workload:
    """The same for replay: blocks by number, equal where all tokens up to their end are."""
    known: dict[tuple[int, ...], int] = {}
    requests = []
    for number, turn in enumerate(turns):
        size = len(turn.prompt_ids)
        ends = range(BLOCK_TOKENS, size + 1, BLOCK_TOKENS)
        blocks = tuple(known.setdefault(turn.prompt_ids[:end], len(known)) for end in ends)
        requests.append(Request(turn.at_s, size, turn.output_tokens, blocks, number=number))
    return Workload("conversations", requests, BLOCK_TOKENS)

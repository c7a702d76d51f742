"""Engine: an in-flight batching engine, one iteration at a time, in virtual time.

Every step computes one token of each request that decodes and, within the chunk budget, some of the prompts,
first come first served. Nothing is evicted that runs: a request starts when all its tokens, the answer's
included, have room. Steps that only decode are taken in one leap, up to the first that ends or to an arrival.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import ceil, inf, sqrt
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from model_registry.cards import GoodputCard
from router.replay.block_cache import BlockCache
from router.replay.workload import Request


class EngineCard(BaseModel):
    """What an engine can do. The default: a 32B model on two H100 (8,192 prompt tokens in 0.40 s)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: Annotated[int, Field(ge=1)] = 256
    """Requests that run at once."""
    chunk_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens of one step, prompts and answers together (`max_num_tokens`)."""
    kv_tokens: Annotated[int, Field(ge=1)] = 800_000
    """Tokens that its KV cache holds."""
    step_floor_s: Annotated[float, Field(gt=0)] = 12e-3
    """A step that does next to nothing: reading the weights."""
    token_s: Annotated[float, Field(gt=0)] = 38e-6
    """Each token of a step, once that is more than the floor."""
    attention_s: Annotated[float, Field(ge=0)] = 2.65e-9
    """Each pair of a prompt's token and one before it."""
    resident_s: Annotated[float, Field(ge=0)] = 48e-9
    """Each token in the cache that a decode step reads."""
    request_s: Annotated[float, Field(ge=0)] = 0.0
    """Each request that decodes in a step."""
    overhead_s: Annotated[float, Field(ge=0)] = 1e-3
    """Of every step."""

    def prefill_s(self, tokens: int) -> float:
        """A prompt of so many tokens alone on the engine, nothing cached."""
        total, done = 0.0, 0
        while done < tokens:
            take = min(self.chunk_tokens, tokens - done)
            total += self.step_s(take, take * (done + take / 2), 0)
            done += take
        return total

    def step_s(self, tokens: int, pairs: float, resident: int, decoding: int = 0) -> float:
        """Time of a step that computes `tokens`; `resident`: tokens in the cache that its decodes read."""
        work = max(self.step_floor_s, self.token_s * tokens) + self.request_s * decoding
        return work + self.attention_s * pairs + self.resident_s * resident + self.overhead_s


def engine_card(card: GoodputCard) -> EngineCard:
    """The engine that a goodput card speaks of.

    Its steps are the card's line over the batch, so what cached tokens cost is in `request_s`, for the
    lengths that the card was made with, and what attention costs is in the rate of its prefill. The card's
    overhead of a first token is a step here: what is spent outside the engine has no place in replay, as the
    network has none. What the card leaves out is as `EngineCard` has it.
    """
    left_out = EngineCard()
    return EngineCard(
        slots=card.slots,
        chunk_tokens=card.chunk_tokens or left_out.chunk_tokens,
        kv_tokens=card.kv_tokens or left_out.kv_tokens,
        step_floor_s=card.step_base_s,
        token_s=1 / card.prefill_tokens_per_s,
        attention_s=0.0,
        resident_s=0.0,
        request_s=card.step_per_request_s,
        overhead_s=0.0,
    )


class Job:
    """One request at one engine; times of the virtual clock, `inf` until they have come."""

    __slots__ = (
        "block_tokens",
        "done",
        "ends_at_step",
        "first_s",
        "hit_tokens",
        "last_s",
        "private",
        "request",
    )

    def __init__(self, request: Request, block_tokens: int) -> None:
        self.request = request
        self.block_tokens = block_tokens
        self.private = ceil((request.prompt_tokens + request.output_tokens) / block_tokens) - len(
            request.blocks
        )
        self.done = 0
        """Prompt tokens that need not be computed any more."""
        self.hit_tokens = 0
        self.first_s = inf
        self.last_s = inf
        self.ends_at_step = 0


class Happened(NamedTuple):
    """What a step brought about."""

    job: Job
    ended: bool
    """Its last token came, else its first. An answer of one token brings both, in that order."""


class Engine:
    """`next_s` is when `advance` has to be called; `inf` while it idles."""

    def __init__(self, name: str, card: EngineCard, cache: BlockCache, block_tokens: int = 512) -> None:
        self.name = name
        self.block_tokens = block_tokens
        self.card = card
        self.cache = cache
        self.waiting: deque[Job] = deque()
        self.next_s = inf
        self._prefilling: list[Job] = []
        self._decoding: list[tuple[int, int, Job]] = []
        self._resident = 0
        self._steps = 0
        self._sequence = 0
        self._begun_s = 0.0
        self._leap = 0
        """Steps under way that only decode; 0 if the step has prompts in it."""

    @property
    def resident_tokens(self) -> int:
        """Tokens in its cache of the requests that decode, as of the last step that ended."""
        return self._resident

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._prefilling) + len(self._decoding)

    def submit(self, job: Job, now_s: float) -> None:
        """A request arrives. A leap under way ends with the step it is in."""
        self.waiting.append(job)
        if self.next_s == inf:
            self._begin(now_s)
        elif self._leap > 1:
            first_s, growth_s = self._decode_s()
            steps = min(self._leap, max(1, _steps_within(now_s - self._begun_s, first_s, growth_s)))
            if steps < self._leap:
                self._leap = steps
                self.next_s = self._begun_s + _sum_s(steps, first_s, growth_s)

    def resume(self, now_s: float) -> None:
        """Room came free elsewhere, in a cache that it shares."""
        if self.next_s == inf and self.waiting:
            self._begin(now_s)

    def advance(self) -> list[Happened]:
        """The step that ends at `next_s`; the next one begins."""
        now_s = self.next_s
        steps = self._leap or 1
        self._steps += steps
        self._resident += steps * len(self._decoding)
        happened: list[Happened] = []
        while self._decoding and self._decoding[0][0] <= self._steps:
            self._end(heapq.heappop(self._decoding)[2], now_s, happened)
        if not self._leap:
            self._finish_prompts(now_s, happened)
        self._begin(now_s)
        return happened

    def _finish_prompts(self, now_s: float, happened: list[Happened]) -> None:
        unfinished = []
        for job in self._prefilling:
            request = job.request
            if job.done < request.prompt_tokens:
                unfinished.append(job)
                continue
            job.first_s = now_s
            happened.append(Happened(job, ended=False))
            self._resident += request.prompt_tokens + 1
            job.ends_at_step = self._steps + request.output_tokens - 1
            if request.output_tokens <= 1:
                self._end(job, now_s, happened)
            else:
                self._sequence += 1
                heapq.heappush(self._decoding, (job.ends_at_step, self._sequence, job))
        self._prefilling = unfinished

    def _end(self, job: Job, now_s: float, happened: list[Happened]) -> None:
        job.last_s = now_s
        self._resident -= job.request.prompt_tokens + max(1, job.request.output_tokens)
        self.cache.give_back(job.request.blocks, job.private)
        happened.append(Happened(job, ended=True))

    def _begin(self, now_s: float) -> None:
        self._begun_s = now_s
        decoding = len(self._decoding)
        tokens, pairs = self._prompts(self.card.chunk_tokens - decoding)
        if tokens:
            self._leap = 0
            self.next_s = now_s + self.card.step_s(tokens + decoding, pairs, self._resident, decoding)
        elif decoding:
            self._leap = self._decoding[0][0] - self._steps
            self.next_s = now_s + _sum_s(self._leap, *self._decode_s())
        else:
            self._leap = 0
            self.next_s = inf

    def _prompts(self, budget: int) -> tuple[int, float]:
        """Chunks of prompts for the next step: their tokens, and the pairs that attention looks at."""
        tokens, pairs = 0, 0.0
        for job in self._prefilling:
            if budget <= tokens:
                return tokens, pairs
            taken, seen = _chunk(job, budget - tokens)
            tokens, pairs = tokens + taken, pairs + seen
        while self.waiting and tokens < budget and self.running < self.card.slots:
            job = self.waiting[0]
            held = self.cache.take(job.request.blocks, job.private)
            if held is None:
                break
            self.waiting.popleft()
            job.hit_tokens = job.done = min(held * job.block_tokens, job.request.prompt_tokens - 1)
            self._prefilling.append(job)
            taken, seen = _chunk(job, budget - tokens)
            tokens, pairs = tokens + taken, pairs + seen
        return tokens, pairs

    def _decode_s(self) -> tuple[float, float]:
        """Seconds of the first decode step from here, and what each further one takes more."""
        decoding = len(self._decoding)
        first_s = self.card.step_s(decoding, 0, self._resident, decoding)
        return first_s, self.card.resident_s * decoding


def _chunk(job: Job, budget: int) -> tuple[int, float]:
    take = min(budget, job.request.prompt_tokens - job.done)
    pairs = take * (job.done + take / 2)
    job.done += take
    return take, pairs


def _sum_s(steps: int, first_s: float, growth_s: float) -> float:
    return steps * first_s + growth_s * steps * (steps - 1) / 2


def _steps_within(elapsed_s: float, first_s: float, growth_s: float) -> int:
    """The number of the step that is under way after so many seconds."""
    if growth_s <= 0:
        return ceil(elapsed_s / first_s)
    half = first_s - growth_s / 2
    return ceil((sqrt(half * half + 2 * growth_s * elapsed_s) - half) / growth_s)

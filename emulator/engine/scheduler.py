"""Which requests take part in the next step, with how many tokens.

In-flight batching, first come first served: decoding requests first, then prompts being computed,
then waiting ones while slots, blocks and the step's token budget last. Owned by the step thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from emulator.engine.api import EngineLimits
from emulator.engine.generation import Generation
from emulator.engine.kv_blocks import BlockPool
from emulator.engine.pacing import StepLoad


@dataclass(frozen=True, slots=True)
class Work:
    """`count` tokens of one generation, from `generation.computed` on."""

    generation: Generation
    count: int


class Scheduler:
    """Waiting and running generations over one block pool.

    Under `guaranteed_no_evict` a request starts only when its longest answer fits, and then never
    stops. Under `max_utilization` it starts when its prompt fits; when blocks run out the youngest
    pauses: its blocks go back, its tokens stay, and it resumes before anything that waits.
    """

    def __init__(self, limits: EngineLimits, pool: BlockPool) -> None:
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []
        self._limits = limits
        self._pool = pool

    def add(self, generation: Generation) -> None:
        self.waiting.append(generation)

    def remove(self, generation: Generation) -> None:
        """Takes out a generation wherever it is and gives back everything it held."""
        if generation in self.running:
            self.running.remove(generation)
            self._give_back(generation)
        else:
            self.waiting.remove(generation)

    def plan(self) -> list[Work]:
        """The next step; empty when nothing can move."""
        work = self._decoding()
        budget = self._limits.max_num_tokens - len(work)
        for generation in self.running:
            if generation.in_context and not generation.hung:
                count = self._chunk(generation, budget)
                if not count:
                    return work
                work.append(Work(generation, count))
                budget -= count
        return work + self._admit(budget)

    def settle(self, work: Work) -> None:
        """Records that the tokens of `work` are computed; full blocks become findable."""
        generation, size = work.generation, self._pool.tokens_per_block
        generation.computed += work.count
        while (generation.named_blocks + 1) * size <= generation.computed:
            start = generation.named_blocks * size
            block = generation.table[generation.named_blocks]
            tokens = generation.tokens[start : start + size]
            generation.last_name = self._pool.name(generation.last_name, block, tokens)
            generation.named_blocks += 1

    def _decoding(self) -> list[Work]:
        work: list[Work] = []
        for generation in list(self.running):
            if generation.paused or generation.hung or generation.in_context:
                continue
            if self._room_to_decode(generation):
                work.append(Work(generation, 1))
        return work

    def _room_to_decode(self, generation: Generation) -> bool:
        """Makes sure the next token has a block, pausing the youngest if need be; False if it was that."""
        while len(generation.table) * self._pool.tokens_per_block <= generation.computed:
            if generation.reserved_blocks:
                generation.reserved_blocks -= 1
                generation.table.append(self._pool.allocate(reserved=True))
            elif self._pool.available:
                generation.table.append(self._pool.allocate())
            else:
                self._pause(self.running[-1])
                if generation.paused:
                    return False
                continue
            generation.allocated_blocks += 1
        return True

    def _pause(self, generation: Generation) -> None:
        self.running.remove(generation)
        self._give_back(generation)
        generation.paused = True
        self.waiting.appendleft(generation)

    def _give_back(self, generation: Generation) -> None:
        self._pool.release(generation.table)
        self._pool.reserved -= generation.reserved_blocks
        generation.table = []
        generation.reserved_blocks = generation.computed = generation.named_blocks = 0
        generation.last_name = generation.root

    def _chunk(self, generation: Generation, budget: int) -> int:
        """Prompt tokens to compute now. Resumed requests may be cut even where prompts may not."""
        if generation.remaining <= budget:
            return generation.remaining
        if not self._limits.enable_chunked_context and not generation.state.produced:
            return 0
        size = self._pool.tokens_per_block
        return budget // size * size if budget >= size else budget

    def _admit(self, budget: int) -> list[Work]:
        work: list[Work] = []
        while self.waiting and budget and len(self.running) < self._limits.max_batch_size:
            generation = self.waiting[0]
            if not self._start(generation, budget):
                break
            self.waiting.popleft()
            self.running.append(generation)
            if generation.hung:
                continue
            count = self._chunk(generation, budget)
            work.append(Work(generation, count))
            budget -= count
        return work

    def _start(self, generation: Generation, budget: int) -> bool:
        """Gives a waiting generation its blocks, all or none."""
        pool = self._pool
        matched = pool.match(generation.tokens, generation.root)
        generation.computed = len(matched) * pool.tokens_per_block
        now = pool.blocks_for(len(generation.tokens))
        total = now
        if self._limits.batch_scheduler_policy == "guaranteed_no_evict":
            total = pool.blocks_for(generation.length_limit)
        if pool.missing(matched, total) > pool.available or not self._chunk(generation, budget):
            generation.computed = 0
            return False
        pool.acquire(matched)
        fresh = [pool.allocate() for _ in range(now - len(matched))]
        generation.table = matched + fresh
        generation.reserved_blocks = total - now
        pool.reserved += generation.reserved_blocks
        generation.named_blocks = len(matched)
        generation.last_name = pool.name_of(matched[-1]) if matched else generation.root
        generation.reused_blocks += len(matched)
        generation.allocated_blocks += len(fresh)
        generation.paused = False
        return True


def load_of(work: Sequence[Work]) -> StepLoad:
    """What a step computes, as far as its time on a GPU depends on it; before it is settled."""
    decoding = [item for item in work if not item.generation.in_context]
    chunks = [item for item in work if item.generation.in_context]
    return StepLoad(
        prefill_tokens=sum(item.count for item in chunks),
        context_pairs=sum(
            item.count * item.generation.computed + item.count * (item.count + 1) // 2 for item in chunks
        ),
        decoding=len(decoding),
        kv_tokens=sum(item.generation.computed for item in decoding),
    )

"""The engine: takes requests from any thread and runs them together, step by step, on one thread.

A step plans (`scheduler`), computes one forward pass (`transformer`), chooses tokens (`sampler`),
waits as long as the paced GPU would (`pacing`), and delivers. Callers and the step thread meet in the
mailbox.

NumPy's BLAS should run with one thread per engine (OPENBLAS_NUM_THREADS=1, set before NumPy is
imported): engines share the machine, and small products do not gain from more.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from emulator.engine.api import EngineLimits, EngineOutput, EngineRequest, EngineStats, FinishReason, Guide
from emulator.engine.checks import check_request
from emulator.engine.errors import (
    EngineClosedError,
    EngineError,
    InjectedFaultError,
    RejectedRequestError,
)
from emulator.engine.faults import FaultSwitch
from emulator.engine.generation import Generation, OnOutput
from emulator.engine.kv_blocks import BlockPool
from emulator.engine.kv_events import KvEventBuffer
from emulator.engine.kv_pool import KvPool
from emulator.engine.lora import Adapter, LoraCache
from emulator.engine.mailbox import Mailbox
from emulator.engine.pacing import Pacing, StepLoad
from emulator.engine.sampler import Choice, GuideState, choose
from emulator.engine.scheduler import Scheduler, Work, load_of
from emulator.engine.stats import Totals, brought_up_to_date, stats_of
from emulator.engine.transformer import Segment, Transformer
from emulator.engine.weights import Weights

_log = logging.getLogger(__name__)

STALLED_POLL_S = 0.02
CRASH_STATUS = 1
GUIDED_DECODING_OFF = (
    "Request is specified with GuidedDecodingParams, but GuidedDecoder is not setup. Please provide a "
    "valid GuidedDecodingConfig to setup GuidedDecoder."
)


class GuideCompiler(Protocol):
    """What turns guides into states; `guides.Guides` is the one there is."""

    def start(self, guide: Guide) -> GuideState:
        """The beginning of a guide. Raises EngineError when it makes no sense."""


class Engine:
    """In-flight batching over one set of weights. `start` before `submit`; `close` ends what is left.

    Every accepted request gets exactly one final output, whatever happens. Callbacks run on the step
    thread and should return quickly; one that raises is logged and its request is cancelled.
    """

    def __init__(
        self,
        weights: Weights,
        limits: EngineLimits,
        pacing: Pacing | None = None,
        faults: FaultSwitch | None = None,
        guides: GuideCompiler | None = None,
        script: Callable[[Sequence[int]], tuple[int, ...] | None] | None = None,
    ) -> None:
        """`script` gives the tokens of the answer to a prompt, or None to let the model answer."""
        self.limits = limits
        self.config = weights.config
        self.max_seq_len = min(
            limits.max_seq_len,
            limits.kv_blocks * limits.tokens_per_block,
            self.config.max_position_embeddings,
        )
        self.max_input_len = min(limits.max_input_len, self.max_seq_len - 1)
        if not limits.enable_chunked_context:
            self.max_input_len = min(self.max_input_len, limits.max_num_tokens)
        self.kv_events = (
            KvEventBuffer(limits.event_buffer_max_size, limits.kv_blocks, self.max_seq_len)
            if limits.event_buffer_max_size
            else None
        )
        self._pool = BlockPool(
            limits.kv_blocks, limits.tokens_per_block, limits.enable_kv_cache_reuse, self.kv_events
        )
        self._scheduler = Scheduler(limits, self._pool)
        self._transformer = Transformer(
            weights, KvPool(self.config, limits.kv_blocks, limits.tokens_per_block)
        )
        self._pacing = pacing
        self._faults = faults
        self._guides = guides
        self.loras = (
            LoraCache(self.config, limits.max_lora_rank, limits.lora_cache_host_memory_bytes)
            if limits.max_lora_rank
            else None
        )
        self._script = script
        self._mailbox = Mailbox(limits.max_queue_size)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._totals = Totals()
        self._stats = self._observe([])

    def start(self) -> None:
        """Starts the step thread."""
        if self._thread is not None:
            raise EngineError("the engine was started already")
        self._mailbox.open()
        self._thread = threading.Thread(target=self._run, name="engine-step", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends requests in flight with EngineClosedError and joins the step thread; may be called twice."""
        self._closing.set()
        self._mailbox.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def submit(self, request: EngineRequest, on_output: OnOutput) -> None:
        """Queues a request; its news go to `on_output` on the step thread.

        Raises an EngineError, and then nothing was queued. `max_tokens` is cut to what fits the
        longest sequence.
        """
        check_request(request, self.config.vocab_size, self.max_input_len)
        limit = min(len(request.input_ids) + request.max_tokens, self.max_seq_len)
        guide, adapter = self._guide(request), self._adapter(request)
        try:
            self._mailbox.put(Generation(request, on_output, limit, time.monotonic_ns(), adapter, guide))
        except Exception:
            self._release(adapter)
            raise

    def _guide(self, request: EngineRequest) -> GuideState | None:
        if request.guide is None:
            return None
        if self._guides is None:
            raise RejectedRequestError(GUIDED_DECODING_OFF)
        return self._guides.start(request.guide)

    def _adapter(self, request: EngineRequest) -> Adapter | None:
        return self.loras.take(request.lora) if request.lora and self.loras else None

    def _release(self, adapter: Adapter | None) -> None:
        if adapter is not None and self.loras is not None:
            self.loras.release(adapter)

    def cancel(self, request_id: str) -> None:
        """Ends a request at the next step with one empty final output; an unknown id is no error."""
        self._mailbox.cancel(request_id)

    def stats(self) -> EngineStats:
        """The state after the last step, with what has arrived since."""
        stats = self._stats
        return brought_up_to_date(stats, self._mailbox.counts())

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._take_in()
                if not self._step():
                    self._mailbox.rest(STALLED_POLL_S)  # something in flight may not be able to move
            self._end_all(EngineClosedError("the engine was closed"))
        except Exception as error:
            _log.exception("engine step failed")
            self._closing.set()
            self._mailbox.close()
            self._take_in()
            self._end_all(EngineError(f"the engine failed: {error}"))

    def _take_in(self) -> None:
        """Moves arrivals and cancellations from the mailbox into the schedule."""
        arrived, cancelled = self._mailbox.take()
        for generation in arrived:
            if self._script is not None:
                generation.script = self._script(generation.request.input_ids)
            self._scheduler.add(generation)
        if cancelled:
            self._finish([g for g in self._all() if g.request.request_id in cancelled], "cancelled")
        self._apply_switch(anyone_new=bool(arrived))

    def _all(self) -> list[Generation]:
        return [*self._scheduler.running, *self._scheduler.waiting]

    def _apply_switch(self, anyone_new: bool) -> None:
        """Faults of the switch reach every request that has none of its own; turning it off heals them."""
        if self._faults is None:
            return
        if self._faults.poll(now_please=anyone_new):
            self._heal()
        if self._faults.setting is None:
            return
        for generation in self._all():
            if generation.fault is None:
                generation.fault = self._faults.take(generation.request.input_ids)
                generation.fault_from_switch = generation.fault is not None

    def _heal(self) -> None:
        for generation in self._all():
            if generation.fault_from_switch:
                generation.fault, generation.fault_from_switch = None, False

    def _step(self) -> bool:
        """Plans, computes and delivers one step; False when nothing could move."""
        started = time.monotonic()
        work = self._scheduler.plan()
        if not work:
            self._publish([])
            return False
        load = load_of(work)
        now = time.monotonic_ns()
        for item in work:
            item.generation.first_scheduled_ns = item.generation.first_scheduled_ns or now
        ready, choices = self._compute(work)
        self._wait_for_pace(load, started, work)
        if not self._stall(ready):
            return True
        self._totals.iterations += 1
        deliveries = [
            self._advance(generation, choice) for generation, choice in zip(ready, choices, strict=True)
        ]
        self._publish(work)
        for deliver in deliveries:
            deliver()
        return True

    def _compute(self, work: Sequence[Work]) -> tuple[list[Generation], list[Choice]]:
        """One forward pass; the generations that got a token, and the tokens."""
        segments = [_segment(item) for item in work]
        wanted = [number for number, item in enumerate(work) if item.count == item.generation.remaining]
        logits = self._transformer.forward(segments, wanted)
        for item in work:
            self._scheduler.settle(item)
        ready = [work[number].generation for number in wanted]
        return ready, choose(logits, [generation.state for generation in ready])

    def _wait_for_pace(self, load: StepLoad, started: float, work: Sequence[Work]) -> None:
        delay_s = (
            sum(
                item.generation.fault.delay_ms
                for item in work
                if item.generation.fault and item.generation.fires("slow")
            )
            * 1e-3
        )
        if self._pacing is not None:
            left_s = self._pacing.step_s(load) - (time.monotonic() - started)
            self._totals.overruns += left_s < 0
            delay_s += max(0.0, left_s)
        if delay_s > 0:
            self._closing.wait(delay_s)

    def _stall(self, ready: Sequence[Generation]) -> bool:
        """Stands still while one of the ready has the fault `hang_engine`; False when closing ended it."""
        while any(generation.fires("hang_engine") for generation in ready):
            if self._closing.wait(STALLED_POLL_S):
                return False
            if self._faults is not None and self._faults.poll():
                self._heal()
        return True

    def _advance(self, generation: Generation, choice: Choice) -> Callable[[], None]:
        """Takes one token into a generation; returns what remains to be told to its owner."""
        if (fired := self._fire(generation)) is not None:
            return fired
        now = time.monotonic_ns()
        generation.first_token_ns = generation.first_token_ns or now
        generation.last_token_ns = now
        if generation.script is not None:
            choice = replace(choice, token=generation.scripted(choice.token))
        generation.state.append(choice.token)
        generation.cum_log_prob += choice.log_prob or 0.0
        self._totals.output_tokens += 1
        output = self._output(generation, [choice])
        fired = self._fire(generation)
        if fired is not None:
            return _both(lambda: self._deliver(generation, output), fired)
        output.finish_reason = generation.finish_reason()
        if output.finish_reason is not None:
            self._end(generation, output)
        return lambda: self._deliver(generation, output)

    def _fire(self, generation: Generation) -> Callable[[], None] | None:
        """The end that a fault gives to a generation now, if it does."""
        if generation.fires("crash"):
            return lambda: os._exit(CRASH_STATUS)
        if generation.fires("error") or generation.fires("error_before"):
            output = self._output(generation, [])
            output.error = InjectedFaultError("injected fault: error")
        elif generation.fires("truncate"):
            output = self._output(generation, [])
        else:
            return None
        self._end(generation, output)
        if output.error is None:
            output.perf = None  # an answer that was cut off has no time of its end
        return lambda: self._deliver(generation, output)

    def _output(self, generation: Generation, choices: Sequence[Choice]) -> EngineOutput:
        log_probs = [choice.log_prob for choice in choices if choice.log_prob is not None]
        return EngineOutput(
            request_id=generation.request.request_id,
            token_ids=[choice.token for choice in choices],
            log_probs=log_probs if generation.request.return_log_probs else None,
            top_log_probs=[choice.top for choice in choices] if generation.request.top_log_probs else None,
            cum_log_prob=generation.cum_log_prob,
            fault="wrong_tensor" if generation.fires("wrong_tensor") else None,
        )

    def _end(self, generation: Generation, output: EngineOutput) -> None:
        """Makes an output final; from here on the generation holds nothing."""
        output.final = True
        output.perf = generation.perf()
        self._scheduler.remove(generation)
        self._release(generation.adapter)
        self._mailbox.ended(generation.request.request_id)

    def _finish(
        self, generations: Sequence[Generation], reason: FinishReason | None, error: EngineError | None = None
    ) -> None:
        """Ends generations between steps, all before the first of their owners hears of it."""
        outputs = [self._output(generation, []) for generation in generations]
        for generation, output in zip(generations, outputs, strict=True):
            output.finish_reason, output.error = reason, error
            self._totals.cancelled += reason == "cancelled"
            self._end(generation, output)
        self._publish([])
        for generation, output in zip(generations, outputs, strict=True):
            self._deliver(generation, output)

    def _deliver(self, generation: Generation, output: EngineOutput) -> None:
        try:
            generation.on_output(output)
        except Exception:
            _log.exception("on_output failed", extra={"request_id": output.request_id})
            self.cancel(output.request_id)

    def _end_all(self, error: EngineError) -> None:
        self._take_in()
        self._finish(self._all(), None, error)

    def _publish(self, work: Sequence[Work]) -> None:
        self._stats = self._observe(work)
        self._mailbox.waiting(len(self._scheduler.waiting))

    def _observe(self, work: Sequence[Work]) -> EngineStats:
        most, counts = self.limits.max_batch_size, self._mailbox.counts()
        return stats_of(most, self._pool, self._scheduler, self._totals, counts, work)


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def _segment(work: Work) -> Segment:
    generation = work.generation
    tokens = generation.tokens[generation.computed : generation.computed + work.count]
    return Segment(tokens, generation.computed, generation.table, generation.adapter)

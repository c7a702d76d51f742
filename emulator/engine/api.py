"""The words in which the engine is asked and answers: requests, outputs, limits, statistics.

Values only. Times are nanoseconds of the monotonic clock (`time.monotonic_ns`), as the executor of
TensorRT-LLM reports its steady clock; counts of tokens and blocks are plain integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emulator.engine.errors import EngineError

FinishReason = Literal["stop", "length", "cancelled"]
GuideType = Literal["json", "json_schema", "regex", "ebnf_grammar"]
SchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]
TokenIds = tuple[int, ...]
TopLogProbs = tuple[tuple[int, float], ...]
"""Token ids and the logarithms of their probabilities."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen.

    Order of effects: embedding bias, temperature, repetition, presence and frequency penalty (all
    three count the prompt too, as TensorRT-LLM does), `min_tokens` and bad words, the guide, then
    min-p, then top-k, then top-p over what top-k left. `temperature` 0 or `top_k` 1 is greedy; `top_k`
    0 and `top_p` <= 0 or >= 1 are off; `seed` None draws fresh entropy.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    min_p: float = 0.0
    """Least probability of a token, as a share of the likeliest one's."""
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """True when the most likely token is always taken."""
        return self.temperature <= 0.0 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class Guide:
    """What the answer must look like; `text` is the schema, expression or grammar, None for `json`."""

    kind: GuideType
    text: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LoraTask:
    """The adapter to compute with, by an id that the caller chooses.

    `weights` [rows, width] and `config` [rows, 3] in the layout of `lora.py` come with the first
    request of a task; later ones may leave them out while the engine has the adapter cached.
    """

    task_id: int
    weights: NDArray[np.floating] | None = None
    config: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One generation. `request_id` must be unique among the requests in flight.

    `embedding_bias` is float32 of shape [vocab] added to the logits. `top_log_probs` likeliest tokens
    come with each token if `return_log_probs` is set. `fault` is a fault hook of `faults.py` for this
    request only.
    """

    request_id: str
    input_ids: TokenIds
    max_tokens: int
    end_id: int | None = None
    stop_words: tuple[TokenIds, ...] = ()
    bad_words: tuple[TokenIds, ...] = ()
    embedding_bias: NDArray[np.float32] | None = None
    sampling: SamplingParams = SamplingParams()
    return_log_probs: bool = False
    top_log_probs: int = 0
    guide: Guide | None = None
    lora: LoraTask | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class PerfMetrics:
    """What one request cost: KV cache blocks, instants (monotonic ns; 0 = never) and token counts."""

    kv_cache_alloc_new_blocks: int
    kv_cache_reused_blocks: int
    kv_cache_alloc_total_blocks: int
    arrival_time_ns: int
    first_scheduled_time_ns: int
    first_token_time_ns: int
    last_token_time_ns: int
    num_input_tokens: int
    num_output_tokens: int


@dataclass(slots=True)
class EngineOutput:
    """News of one request: the tokens of one step, or its end, or both.

    `token_ids` holds new tokens only, the end token and stop words included. Exactly one output per
    request has `final`; it alone carries `perf`, and either a `finish_reason`, an `error`, or, for
    the fault `truncate`, neither. `cum_log_prob` sums the log probabilities of all tokens so far.
    `fault` names the fault hook that the serving layer has to act on (`wrong_tensor`).
    """

    request_id: str
    token_ids: list[int]
    log_probs: list[float] | None = None
    top_log_probs: list[TopLogProbs] | None = None
    """Of each token, the likeliest ones, best first."""
    cum_log_prob: float = 0.0
    final: bool = False
    finish_reason: FinishReason | None = None
    error: EngineError | None = None
    perf: PerfMetrics | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine was built for; the counterpart of an engine's build and runtime configuration.

    `max_num_tokens` bounds the tokens of one step, prompt chunks and decoded tokens together.
    `kv_blocks` is the whole pool, `tokens_per_block` tokens each; a sequence is never longer than the
    pool, whatever `max_seq_len` says. `event_buffer_max_size` KV cache events are kept until they are read,
    the newest ones; 0 keeps none. `max_queue_size` None lets any number wait. `max_lora_rank` 0
    is an engine built without LoRA, which computes with its base whatever adapter is asked for.
    """

    max_batch_size: int = 64
    max_num_tokens: int = 2048
    max_seq_len: int = 2048
    max_input_len: int = 2047
    tokens_per_block: int = 32
    kv_blocks: int = 512
    enable_kv_cache_reuse: bool = True
    enable_chunked_context: bool = True
    batch_scheduler_policy: SchedulerPolicy = "guaranteed_no_evict"
    max_queue_size: int | None = None
    max_lora_rank: int = 0
    event_buffer_max_size: int = 0
    lora_cache_host_memory_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_num_tokens", "max_input_len", "tokens_per_block", "kv_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_seq_len < 2:
            raise ValueError(f"max_seq_len must be at least 2, got {self.max_seq_len}")
        if self.max_num_tokens < self.max_batch_size:
            raise ValueError(
                f"max_num_tokens ({self.max_num_tokens}) must be at least max_batch_size "
                f"({self.max_batch_size}): every running request decodes one token per step"
            )
        if self.batch_scheduler_policy not in ("guaranteed_no_evict", "max_utilization"):
            raise ValueError(
                "batch_scheduler_policy must be guaranteed_no_evict or max_utilization, "
                f"got {self.batch_scheduler_policy!r}"
            )
        for name in ("max_lora_rank", "lora_cache_host_memory_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.max_queue_size is not None and self.max_queue_size < 1:
            raise ValueError(f"max_queue_size must be at least 1 or None, got {self.max_queue_size}")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One look at the engine, taken after a step; names follow the `nv_trt_llm_*` metric families.

    `active` counts everything accepted and not ended, `scheduled` what holds a slot, `context` what
    the last step computed of prompts; `waiting` is `active - scheduled`. Used blocks are held by
    requests; free ones include cached blocks that may be evicted; reused ones count hits since the
    start. The totals only grow.
    """

    active_requests: int
    max_requests: int
    scheduled_requests: int
    context_requests: int
    waiting_requests: int
    kv_max_blocks: int
    kv_free_blocks: int
    kv_used_blocks: int
    kv_tokens_per_block: int
    kv_reused_blocks: int
    kv_fraction: float
    total_context_tokens: int
    generation_requests: int
    paused_requests: int
    iteration_counter: int
    timestamp_us: int
    total_requests: int
    total_cancelled: int
    total_input_tokens: int
    total_output_tokens: int
    total_pacing_overruns: int

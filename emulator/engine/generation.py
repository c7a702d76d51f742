"""One request while the engine works on it: its tokens, its blocks, its times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emulator.engine.api import EngineOutput, EngineRequest, FinishReason, PerfMetrics
from emulator.engine.faults import Fault
from emulator.engine.kv_blocks import ROOT
from emulator.engine.lora import Adapter
from emulator.engine.sampler import GuideState, SamplingState, ends_with

OnOutput = Callable[[EngineOutput], None]


@dataclass(slots=True)
class Generation:
    """State of one request, owned by the step thread once it was taken in.

    `computed` counts the tokens whose keys and values are in the cache; `length_limit` is the total
    number of tokens at which the engine stops.
    """

    request: EngineRequest
    on_output: OnOutput
    length_limit: int
    arrival_ns: int
    adapter: Adapter | None = None
    guide: GuideState | None = None
    state: SamplingState = field(init=False)
    computed: int = 0
    table: list[int] = field(default_factory=list)
    named_blocks: int = 0
    last_name: int = field(init=False)
    reserved_blocks: int = 0
    paused: bool = False
    fault: Fault | None = field(init=False)
    fault_from_switch: bool = False
    script: tuple[int, ...] | None = None
    """The tokens to answer with, whatever the model would choose."""
    cum_log_prob: float = 0.0
    reused_blocks: int = 0
    allocated_blocks: int = 0
    first_scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0

    def __post_init__(self) -> None:
        self.state = SamplingState(self.request, list(self.request.input_ids), self.guide)
        self.last_name = self.root
        self.fault = Fault.parse(self.request.fault) if self.request.fault else None

    @property
    def root(self) -> int:
        """Under which name its first block is filed: adapters change keys and values, so each has its own."""
        return -self.adapter.serial if self.adapter else ROOT

    @property
    def tokens(self) -> list[int]:
        """Prompt and produced tokens."""
        return self.state.tokens

    @property
    def remaining(self) -> int:
        """Tokens whose keys and values are still to be computed; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def in_context(self) -> bool:
        """True while the prompt (or, after a pause, everything so far) is being computed."""
        return self.remaining > 1 or self.state.produced == 0

    @property
    def hung(self) -> bool:
        """True while a fault keeps the request from moving."""
        return self.fires("hang")

    def fires(self, kind: str) -> bool:
        """True once the request's fault is of this kind and enough tokens were delivered."""
        fault = self.fault
        return fault is not None and fault.kind == kind and self.state.produced >= fault.after_tokens

    def scripted(self, token: int) -> int:
        """The next token of the script, where there is one and it goes on; else the chosen `token`."""
        produced = self.state.produced
        return token if self.script is None or produced >= len(self.script) else self.script[produced]

    def finish_reason(self) -> FinishReason | None:
        """Why the tokens so far are the whole answer; None when they are not."""
        request, produced = self.request, self.state.produced
        if produced:
            answer = self.tokens[len(request.input_ids) :]
            if answer[-1] == request.end_id:
                return "stop"
            if produced >= request.sampling.min_tokens and any(
                ends_with(answer, word) for word in request.stop_words if word
            ):
                return "stop"
        return "length" if len(self.tokens) >= self.length_limit else None

    def perf(self) -> PerfMetrics:
        return PerfMetrics(
            kv_cache_alloc_new_blocks=self.allocated_blocks,
            kv_cache_reused_blocks=self.reused_blocks,
            kv_cache_alloc_total_blocks=self.allocated_blocks + self.reused_blocks,
            arrival_time_ns=self.arrival_ns,
            first_scheduled_time_ns=self.first_scheduled_ns,
            first_token_time_ns=self.first_token_ns,
            last_token_time_ns=self.last_token_ns,
            num_input_tokens=len(self.request.input_ids),
            num_output_tokens=self.state.produced,
        )

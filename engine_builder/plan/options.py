"""Options: candidates that can be built, with what they take and what they are expected to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine_builder.checkpoint import Checkpoint
from engine_builder.plan import performance
from engine_builder.plan.candidates import (
    DEFAULT_STEP_TOKENS,
    MOST_BATCH,
    ask_of,
    closed,
    longest_sequence,
    rounded,
    step_tokens,
)
from engine_builder.plan.findings import Finding, errors
from engine_builder.plan.legality import check
from engine_builder.plan.memory import Memory, memory_of
from engine_builder.plan.performance import PerformanceModel
from engine_builder.shape import Shape
from model_registry.cards import GoodputCard
from model_registry.engine_specs import EngineSpec, Precision
from router.goodput import Ask, Load, forecast, load, most, within
from router.gpus import GPUS


@dataclass(frozen=True, slots=True)
class Option:
    """One engine that could be built."""

    spec: EngineSpec
    """With nothing open."""
    memory: Memory
    card: GoodputCard
    """With the goodput at the targets; 0: it misses them."""
    at_targets: Load | None
    """The most within the targets; None: not even one request meets them."""
    alone: Load
    """One request at a time."""
    findings: tuple[Finding, ...]
    usual: bool
    """Of a precision that may be chosen without being asked for."""

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Output tokens within the targets."""
        assert self.card.goodput is not None
        return self.card.goodput.tokens_per_s / self.spec.gpus

    @property
    def answer_s(self) -> float:
        """How long one user waits for a whole answer, alone on the engine."""
        assert self.card.goodput is not None
        return self.alone.ttft_s + (self.card.goodput.output_tokens - 1) * self.alone.itl_s


@dataclass(slots=True)
class Sorted:
    """Candidates by what became of them."""

    options: list[Option] = field(default_factory=list)
    refused: list[tuple[EngineSpec, list[Finding]]] = field(default_factory=list)
    """With the errors of each."""
    unknown: list[EngineSpec] = field(default_factory=list)
    """Legal, but nothing is known of their pace."""


def sort(
    specs: Iterable[EngineSpec],
    checkpoint: Checkpoint,
    model: PerformanceModel,
    ask: Ask,
    usual: tuple[Precision, ...],
    *,
    quantized: Precision | None = None,
    draft: Shape | None = None,
) -> Sorted:
    """Which candidates can be built, and how fast they are."""
    found = Sorted()
    for spec in specs:
        trial = closed(spec, 1, DEFAULT_STEP_TOKENS)
        stopping = errors(check(trial, checkpoint.shape, quantized=quantized, draft=draft))
        if stopping:
            found.refused.append((trial, stopping))
            continue
        option = _option(spec, checkpoint, model, ask, usual, quantized, draft)
        if option is None:
            found.unknown.append(trial)
        elif stopping := errors(option.findings):
            found.refused.append((option.spec, stopping))
        else:
            found.options.append(option)
    return found


def _option(
    spec: EngineSpec,
    checkpoint: Checkpoint,
    model: PerformanceModel,
    ask: Ask,
    usual: tuple[Precision, ...],
    quantized: Precision | None,
    draft: Shape | None,
) -> Option | None:
    gpu = GPUS[spec.gpu_class]
    trial = closed(spec, 1, DEFAULT_STEP_TOKENS)
    lines = model.lines(trial, checkpoint, ask)
    if lines is None:
        return None
    tokens = step_tokens(lines.prefill_tokens_per_s, ask.itl_s)

    def at(batch: int) -> tuple[EngineSpec, Memory, GoodputCard]:
        one = closed(spec, batch, tokens)
        memory = memory_of(one, checkpoint.shape, gpu, draft)
        return one, memory, performance.card(model, one, memory, lines)

    asked = ask.prompt_tokens + ask.output_tokens
    low, high = 1, MOST_BATCH
    while low < high:  # slots take memory from the cache: as many as it still feeds
        middle = (low + high + 1) // 2
        low, high = (middle, high) if at(middle)[1].requests(asked) >= middle else (low, middle - 1)
    met = within(at(low)[2], ask)
    final, memory, card = at(rounded(met.batch, low) if met is not None else 1)
    final = closed(final, 1, tokens, longest_sequence(spec, checkpoint.shape, memory.tokens))
    if most(card, ask) < 1:
        return None
    return Option(
        spec=final,
        memory=memory,
        card=card.model_copy(update={"goodput": forecast(card, ask)}),
        at_targets=within(card, ask),
        alone=load(card, ask, 1),
        findings=tuple(check(final, checkpoint.shape, quantized=quantized, draft=draft)),
        usual=spec.precision in usual,
    )


def card_of(
    spec: EngineSpec, checkpoint: Checkpoint, model: PerformanceModel, draft: Shape | None = None
) -> GoodputCard | None:
    """What an engine with nothing open is expected to do at its targets; None: nothing is known of it."""
    gpu, ask = GPUS.get(spec.gpu_class), ask_of(spec)
    lines = model.lines(spec, checkpoint, ask) if gpu is not None else None
    if gpu is None or lines is None:
        return None
    found = performance.card(model, spec, memory_of(spec, checkpoint.shape, gpu, draft), lines)
    return found.model_copy(update={"goodput": forecast(found, ask)})

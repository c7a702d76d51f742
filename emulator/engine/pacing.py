"""How long a step would take on a given GPU engine, so that a laptop keeps its time.

A card is a JSON file in `cards/` with the parameters below and their source. One step lasts

    max(base_ms, tokens / prefill_tokens_per_s) + per_request_us * decoding
      + per_kv_token_ns * kv_tokens + per_context_pair_ns * pairs + overhead_ms

where tokens counts prompt and decoded tokens of the step, kv_tokens the context of the decoding
requests, and pairs every prompt token with itself and each token before it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

CARDS = Path(__file__).parent / "cards"
OFF = "none"


@dataclass(frozen=True, slots=True)
class StepLoad:
    """What one step computes, as far as time depends on it."""

    prefill_tokens: int
    context_pairs: int
    decoding: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Pacing:
    """The time one GPU engine takes per step; `source` says where the numbers come from."""

    name: str
    source: str
    prefill_tokens_per_s: float
    base_ms: float
    per_request_us: float = 0.0
    per_kv_token_ns: float = 0.0
    per_context_pair_ns: float = 0.0
    overhead_ms: float = 0.0
    min_step_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.prefill_tokens_per_s <= 0:
            raise ValueError(f"{self.name}: prefill_tokens_per_s must be above 0")
        rest = (
            "base_ms",
            "per_request_us",
            "per_kv_token_ns",
            "per_context_pair_ns",
            "overhead_ms",
            "min_step_ms",
        )
        for field in rest:
            if getattr(self, field) < 0:
                raise ValueError(f"{self.name}: {field} must not be negative")

    @classmethod
    def load(cls, path_or_name: str | Path) -> Pacing | None:
        """Reads a card by file path or by name; the name `none` is full CPU speed, hence None."""
        if path_or_name == OFF:
            return None
        path = CARDS / f"{path_or_name}.json"
        if not path.is_file():
            path = Path(path_or_name)
        if not path.is_file():
            raise ValueError(
                f"pacing {str(path_or_name)!r} is unknown; a file, or one of {', '.join(cls.names())}"
            )
        fields = json.loads(path.read_text(encoding="utf-8"))
        unknown = fields.keys() - cls.__dataclass_fields__.keys() - {"description", "derivation"}
        if unknown:
            raise ValueError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
        return cls(**{name: value for name, value in fields.items() if name in cls.__dataclass_fields__})

    @staticmethod
    def names() -> list[str]:
        """All cards by name, and `none`."""
        return [OFF, *sorted(path.stem for path in CARDS.glob("*.json"))]

    def step_s(self, load: StepLoad) -> float:
        """Seconds that the step takes on the card."""
        tokens = load.prefill_tokens + load.decoding
        milliseconds = (
            max(self.base_ms, tokens / self.prefill_tokens_per_s * 1e3)
            + self.per_request_us * load.decoding * 1e-3
            + self.per_kv_token_ns * load.kv_tokens * 1e-6
            + self.per_context_pair_ns * load.context_pairs * 1e-6
            + self.overhead_ms
        )
        return max(self.min_step_ms, milliseconds) * 1e-3

"""Paced engines take the time of the card, and still make real tokens."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from emulator.engine import Pacing, StepLoad

from .conftest import MakeClient

SLOW = Pacing(name="slow", source="made up for this test", prefill_tokens_per_s=1000.0, base_ms=20.0)
DECODE = StepLoad(prefill_tokens=0, context_pairs=0, decoding=1, kv_tokens=100)


def test_a_step_costs_what_the_formula_says() -> None:
    card = Pacing("c", "s", 10_000.0, 5.0, 10.0, 50.0, 2.0, 1.0)
    decode = StepLoad(prefill_tokens=0, context_pairs=0, decoding=32, kv_tokens=10_000)
    assert card.step_s(decode) == pytest.approx(0.005 + 32 * 10e-6 + 10_000 * 50e-9 + 0.001)
    mixed = replace(decode, prefill_tokens=1000, context_pairs=500_000)
    assert card.step_s(mixed) == pytest.approx(0.1032 + 0.00032 + 0.0005 + 0.001 + 0.001)
    assert replace(card, min_step_ms=30.0).step_s(decode) == pytest.approx(0.030)


def test_the_engine_keeps_the_time_of_the_card(make_client: MakeClient) -> None:
    """64 prompt tokens at 1000 per second, then nine steps of 20 ms."""
    client = make_client(pacing=SLOW)
    expected = make_client().ask(range(64), 10)
    started = time.monotonic()
    tokens = client.ask(range(64), 10)
    took_s = time.monotonic() - started
    assert tokens == expected
    assert 0.064 + 9 * 0.020 <= took_s < 2.0
    perf = client.last("ask-0").perf
    assert perf is not None
    assert perf.first_token_time_ns - perf.first_scheduled_time_ns >= 60_000_000


def test_a_card_faster_than_this_machine_is_counted_as_overrun(make_client: MakeClient) -> None:
    client = make_client(pacing=Pacing("fast", "made up", prefill_tokens_per_s=1e12, base_ms=0.0))
    client.ask(range(8), 5)
    assert client.engine.stats().total_pacing_overruns == 5


def test_closing_does_not_wait_for_the_card(make_client: MakeClient) -> None:
    client = make_client(pacing=replace(SLOW, base_ms=60_000.0))
    client.send("r", range(8), 5)
    started = time.monotonic()
    client.engine.close()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", [name for name in Pacing.names() if name != "none"])
def test_every_card_loads_and_names_its_source(name: str) -> None:
    card = Pacing.load(name)
    assert card is not None
    assert card.name == name
    assert len(card.source) > 20
    assert 0.001 < card.step_s(DECODE) < 0.1


def test_faster_memory_decodes_faster() -> None:
    """The cards rank as the GPUs' memory bandwidths do."""
    names = ("h200-sxm-llama-3.1-8b-fp8", "h100-sxm-llama-3.1-8b-fp8", "l40s-llama-3.1-8b-fp8")
    busy = StepLoad(prefill_tokens=0, context_pairs=0, decoding=64, kv_tokens=64 * 1024)
    times = [card.step_s(busy) for card in map(Pacing.load, names) if card]
    assert times == sorted(times)
    assert len(times) == 3


def test_the_reference_card_meets_its_anchor() -> None:
    """8,192 prompt tokens of Qwen3-32B in 0.40 s on two H100."""
    card = Pacing.load("h100-x2-qwen3-32b")
    assert card is not None
    whole = StepLoad(prefill_tokens=8192, context_pairs=8192 * 8193 // 2, decoding=0, kv_tokens=0)
    assert card.step_s(whole) == pytest.approx(0.40, abs=0.01)


def test_none_is_full_speed() -> None:
    assert Pacing.load("none") is None


def test_an_unknown_card_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="h100-sxm"):
        Pacing.load("h999")


def test_a_wrong_card_names_the_field(tmp_path: Path) -> None:
    fields = {"name": "x", "source": "s", "prefill_tokens_per_s": 0, "base_ms": 1}
    path = tmp_path / "card.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="prefill_tokens_per_s"):
        Pacing.load(path)
    path.write_text(json.dumps({**fields, "speed": 3}))
    with pytest.raises(ValueError, match="speed"):
        Pacing.load(path)

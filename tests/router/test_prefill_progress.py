"""Ledger: how far an engine is likely to be with the prompts that it was sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.forecast import Forecast
from router.ledger import HOPED_PROGRESS, PROGRESS, Charge, EndpointLoad, Lease

PACE = 10_000.0


def remaining(load: EndpointLoad, now_s: float) -> int:
    return load.prefill_tokens - load.computed_tokens(PACE, now_s)


def test_the_prompt_at_the_head_advances_and_the_others_wait() -> None:
    """Never past its end, whatever the time; the next one begins when the first token comes."""
    load = EndpointLoad()
    first, second = Lease(load, Charge(8000, at_s=0.0)), Lease(load, Charge(5000, at_s=0.5))
    first.__enter__()
    second.__enter__()
    assert remaining(load, 0.0) == 13_000
    assert remaining(load, 1.0) == 13_000 - PROGRESS * PACE
    assert remaining(load, 60.0) == 5000
    first.first_token(2.0)
    assert remaining(load, 2.0) == 5000
    assert remaining(load, 3.0) == 5000 - PROGRESS * PACE
    second.first_token(4.0)
    assert (remaining(load, 4.0), load.computed_tokens(PACE, 9.0)) == (0, 0)


def test_a_first_token_out_of_turn_leaves_the_head_as_it_is() -> None:
    """Small prompts share a step with what is before them."""
    load = EndpointLoad()
    head, small = Lease(load, Charge(8000, at_s=0.0)), Lease(load, Charge(10, at_s=0.0))
    with head, small:
        small.first_token(1.0)
        assert remaining(load, 1.0) == 8000 - PROGRESS * PACE
    assert (load.prompts, load.prefill_tokens) == ({}, 0)


def test_a_charge_without_a_time_makes_no_progress() -> None:
    """Nothing is guessed of it."""
    load = EndpointLoad()
    with Lease(load, Charge(8000)):
        assert remaining(load, 60.0) == 8000


def test_a_whole_answers_first_token_is_taken_to_come_when_it_is_due() -> None:
    """In time for whoever looks, unless the request has ended by then."""
    load = EndpointLoad()
    gone, here = Lease(load, Charge(500, at_s=0.0)), Lease(load, Charge(8000, 8000, at_s=0.0))
    with here:
        with gone:
            gone.foretell(1.0)
            here.foretell(2.0)
        load.catch_up(1.9)
        assert (load.prefill_tokens, load.decoding) == (8000, 0)
        load.catch_up(2.0)
        assert (load.prefill_tokens, load.decoding, here.first_s) == (0, 1, 2.0)
    assert (load.requests, load.decoding, len(load.foretold)) == (0, 0, 0)


def test_what_may_be_done_too_is_told_apart() -> None:
    """Of the prompt at the head, and no more than what is left of it."""
    load, forecast = EndpointLoad(), Forecast()
    pace = forecast.prefill_tokens_per_s
    with Lease(load, Charge(8000, at_s=0.0)), Lease(load, Charge(500, at_s=0.0)):
        seen = [load.view("a", 8, 1.0, forecast, at_s, 0, 0) for at_s in (0.0, 0.1, 0.45, 9.0)]
    done = [8500 - view.prefill_tokens for view in seen]
    assert done == [0, int(0.1 * pace * PROGRESS), int(0.45 * pace * PROGRESS), 8000]
    hoped = [one + view.hoped_tokens for one, view in zip(done, seen, strict=True)]
    assert hoped == [0, int(0.1 * pace * HOPED_PROGRESS), int(0.45 * pace * HOPED_PROGRESS), 8000]


@given(
    decoding=st.integers(1, 64),
    output=st.integers(0, 5_000),
    begun_s=st.floats(0, 3_000),
    now_s=st.floats(0, 100),
)
def test_views_count_decode_tokens_as_the_ledger_does(
    decoding: int, output: int, begun_s: float, now_s: float
) -> None:
    """The written out sum is the one of `decode_tokens`."""
    load = EndpointLoad(decoding, decoding=decoding, decode_prompt_tokens=7, decode_output_tokens=output)
    load.decode_begins_s = begun_s
    view = load.view("a", 64, 1.0, Forecast(), now_s, 0, 0)
    assert view.decode_tokens == load.decode_tokens(view.step_s, now_s)

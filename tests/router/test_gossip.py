"""Gossip: within its budget, understood by others, and forgotten when it is old."""

from __future__ import annotations

import asyncio
import base64
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.gossip import BYTES_PER_S, Gossip, Others
from router.gossip_message import Hint, Lateness, Load, decode, encode, endpoint_key
from router.outliers import Late

keys = st.integers(0, 2**32 - 1)
numbers = st.integers(0, 2**40)
loads = st.lists(st.builds(Load, keys, numbers, numbers, numbers), max_size=300)
lates = st.lists(st.builds(Lateness, keys, numbers, numbers), max_size=5)
hints = st.lists(st.builds(Hint, keys, st.lists(keys, min_size=1, max_size=18).map(tuple)), max_size=300)
PERIOD_S = 0.25


class Flight(NamedTuple):
    requests: int
    prefill_tokens: int
    decode_tokens: int


@given(loads, hints, st.integers(16, 2000), lates)
def test_a_message_keeps_to_its_budget_and_says_what_went_into_it(
    given_loads: list[Load], given_hints: list[Hint], budget: int, given_late: list[Lateness]
) -> None:
    text, sent = encode(given_loads, given_hints, budget, given_late)
    assert len(text) <= budget
    if text:
        understood = decode(text)
        assert [list(part) for part in understood] == [list(part) for part in sent]
    if budget >= 256:
        assert list(sent.late) == given_late, "it goes before all else"
    assert list(sent.loads) == given_loads[: len(sent.loads)]


@given(loads, hints, st.data())
def test_a_message_that_was_cut_is_refused(
    given_loads: list[Load], given_hints: list[Hint], data: st.DataObject
) -> None:
    text, _ = encode([Load(1, 2, 3, 4), *given_loads], given_hints, 400)
    whole = base64.b64decode(text)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError, match=r"not a message|ends too early"):
        decode(base64.b64encode(cut).decode())


async def test_many_endpoints_are_all_told_within_a_second_and_its_budget() -> None:
    flights = {f"d@10.0.0.{n}:8000": Flight(30, 90_000 + n, 120_000) for n in range(64)}
    teller, hearer = Gossip(lambda: flights, PERIOD_S), Gossip(dict, PERIOD_S)
    for n in range(100):
        teller.dispatched("d@10.0.0.1:8000", range(n, n + 400))
    sent = 0
    for _ in range(int(1 / PERIOD_S)):
        text = teller.tell()
        sent += len(text)
        hearer.hear("w", text)
    assert sent <= BYTES_PER_S
    told = [name for name in flights if hearer.others(name).requests == 30]
    assert len(told) >= 0.5 * len(flights)
    for _ in range(int(1 / PERIOD_S)):
        hearer.hear("w", teller.tell())
    assert hearer.others("d@10.0.0.63:8000")[:3] == (30, 90_063, 120_000)


async def test_a_late_endpoint_is_told_and_forgotten() -> None:
    now_s = asyncio.get_running_loop().time()
    seen = {"e": Late(1, now_s - 0.5)}
    teller, hearer = Gossip(dict, PERIOD_S, lambda _: seen), Gossip(dict, PERIOD_S)
    for process in ("w1", "w2"):
        hearer.hear(process, teller.tell())
    told = hearer.late("e", now_s)
    assert [one.in_a_row for one in told] == [1, 1]
    assert all(one.began_s == pytest.approx(now_s - 0.5, abs=0.1) for one in told)
    assert list(hearer.late("another", now_s)) == []
    assert list(hearer.late("e", now_s + 3)) == []


async def test_nothing_new_is_not_told() -> None:
    flights = {"e": Flight(1, 10, 0)}
    teller = Gossip(lambda: flights, PERIOD_S)
    assert teller.tell()
    assert teller.tell() == ""
    flights.clear()
    hearer = Gossip(dict, PERIOD_S)
    hearer.hear("w", teller.tell())
    assert hearer.others("e") == Others()
    assert teller.tell() == ""


async def test_loads_add_up_over_processes_and_have_an_age() -> None:
    gossip = Gossip(dict, PERIOD_S)
    for worker, requests in (("a", 2), ("b", 3), ("a", 4)):
        gossip.hear(worker, Gossip(lambda n=requests: {"e": Flight(n, 10 * n, n)}, PERIOD_S).tell())
    await asyncio.sleep(0.02)
    requests, prefill, decoding, age_s = gossip.others("e")
    assert (requests, prefill, decoding) == (7, 70, 7)
    assert age_s == pytest.approx(0.02, abs=0.05)


async def test_a_prefix_that_another_process_sent_is_known() -> None:
    teller, hearer = Gossip(dict, PERIOD_S), Gossip(dict, PERIOD_S)
    blocks = [hash((7, n)) & 0xFFFFFFFFFFFFFFFF for n in range(100)]
    teller.dispatched("e", blocks)
    hearer.hear("w", teller.tell())
    here = endpoint_key("e")
    assert hearer.held([*blocks, 1, 2, 3]) == {here: 100}
    assert hearer.held([*blocks[:40], 1, 2, 3]) == {here: 32}
    assert hearer.held([1, 2, 3]) == {}

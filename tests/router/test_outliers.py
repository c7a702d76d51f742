"""An endpoint far beyond its peers is left, for a growing time, and never too many at once."""

from __future__ import annotations

import pytest

from model_registry.entities import Endpoint
from router.config import OutlierConfig
from router.outliers import Late, Leave, Sample, leave, room, suspects
from router.paces import Paces
from telemetry.request_trace import AttemptTrace

CONFIG = OutlierConfig()


def sample(name: str, ttft_s: float, work: float = 1000, errors: float | None = None) -> Sample:
    return Sample(name, ttft_s / work, ttft_s / work, work, errors)


def test_the_slow_one_is_named_with_by_how_much() -> None:
    found = suspects([sample("a", 0.1), sample("b", 0.1), sample("c", 1.0), sample("d", 0.12)], CONFIG)
    assert [(one.name, one.reason) for one in found] == [
        ("c", "slow: 10.0 times its peers' time to first token")
    ]


def test_long_prompts_do_not_make_an_endpoint_slow() -> None:
    """It is the pace that counts: ten times the work may take ten times as long."""
    assert suspects([sample("a", 0.1), sample("b", 0.1), sample("c", 1.0, 10_000)], CONFIG) == []


def test_a_factor_of_very_little_is_no_reason() -> None:
    assert suspects([sample("a", 0.001), sample("b", 0.001), sample("c", 0.05)], CONFIG) == []


def test_when_all_are_slow_none_is() -> None:
    assert suspects([sample(name, 5.0) for name in "abcd"], CONFIG) == []


def test_without_peers_nothing_is_known() -> None:
    assert suspects([sample("a", 9.0)], CONFIG) == []
    assert suspects([sample("a", 9.0), Sample("b")], CONFIG) == []


def test_the_failing_one_is_named_unless_all_fail() -> None:
    rates = [0.0, 0.1, 0.6]
    some = [Sample(str(rate), error_rate=rate) for rate in rates]
    assert [one.name for one in suspects(some, CONFIG)] == ["0.6"]
    assert suspects([Sample(str(n), error_rate=0.6) for n in range(4)], CONFIG) == []


@pytest.mark.parametrize(
    ("endpoints", "left", "more"),
    [(1, 0, 0), (2, 0, 1), (2, 1, 0), (4, 0, 1), (6, 0, 2), (6, 2, 0), (0, 0, 0)],
)
def test_one_may_always_go_and_one_always_stays(endpoints: int, left: int, more: int) -> None:
    assert room(endpoints, left, CONFIG) == more


def test_each_leave_is_twice_as_long_until_the_endpoint_has_been_well() -> None:
    last: Leave | None = None
    now_s, lengths = 100.0, []
    for _ in range(8):
        last = leave(last, now_s, "slow", CONFIG)
        lengths.append(last.until_s - now_s)
        now_s = last.until_s + 1
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300]
    again = leave(last, now_s + CONFIG.max_s, "slow", CONFIG)
    assert again.until_s - (now_s + CONFIG.max_s) == 5


def endpoint(name: str) -> Endpoint:
    return Endpoint(
        name=name,
        deployment=name,
        model="m",
        profile="balanced",
        lane="tensorrt_llm",
        target="t",
        http="http://h",
        server_schema={},
        state="ready",
    )


class Fleet:
    """Endpoints whose first tokens a test makes up."""

    def __init__(self, names: str) -> None:
        self.paces = Paces(CONFIG)
        self.endpoints = [endpoint(name) for name in names]
        self.of = {one.name: one for one in self.endpoints}

    def begins(self, name: str, start_s: float, tokens: int = 488) -> AttemptTrace:
        trace = AttemptTrace(name, "tensorrt_llm", "t", "", None)
        trace.start_ns = int(start_s * 1e9)
        self.paces.begins(self.of[name], trace, tokens)
        return trace

    def answers(self, name: str, start_s: float, ttft_s: float, tokens: int = 488) -> None:
        trace = self.begins(name, start_s, tokens)
        trace.first_token_ns = trace.start_ns + int(ttft_s * 1e9)
        self.paces.ends(self.of[name], trace, False, start_s + ttft_s)

    def left(self, now_s: float) -> set[str]:
        return set(self.paces.left(self.endpoints, now_s))


def test_who_still_waits_counts_by_the_age_of_its_requests() -> None:
    """A stuck endpoint brings no first token that could be timed."""
    fleet = Fleet("abcd")
    for name in "abcd":
        for _ in range(5):
            fleet.answers(name, 0.0, 0.1)
    for _ in range(3):
        fleet.begins("a", 1.0)
    assert fleet.left(1.05) == set()
    assert fleet.left(3.0) == {"a"}
    assert (fleet.paces.why_left("a") or "").startswith("slow: ")
    assert fleet.paces.why_left("b") is None


def test_one_late_answer_is_no_habit() -> None:
    fleet = Fleet("abc")
    for name in "abc":
        for _ in range(4):
            fleet.answers(name, 0.0, 0.1)
    fleet.answers("a", 0.1, 5.0)
    assert fleet.left(6.0) == set()


def usual(names: str = "abcd") -> Fleet:
    """Each has been as fast as the others."""
    fleet = Fleet(names)
    for name in names:
        for _ in range(5):
            fleet.answers(name, 0.0, 0.1)
    return fleet


def test_two_in_a_row_that_are_far_too_late_are_enough() -> None:
    """Where requests are few a third one would be a long time coming."""
    fleet = usual()
    fleet.answers("a", 1.0, 1.5)
    assert fleet.left(2.5) == set()
    fleet.begins("a", 2.6)
    assert fleet.left(2.8) == set()
    assert fleet.left(3.5) == {"a"}
    assert (fleet.paces.why_left("a") or "").startswith("slow: 2 first tokens in a row")


def test_two_that_are_only_late_are_not_enough() -> None:
    fleet = usual()
    for start_s in (1.0, 2.0):
        fleet.answers("a", start_s, 0.5)
    assert fleet.left(3.0) == set()


def test_those_that_began_before_a_late_one_do_not_speak_for_the_endpoint() -> None:
    """They were served when it was still well."""
    fleet = usual()
    before = fleet.begins("a", 1.0)
    for _ in range(2):
        fleet.begins("a", 1.05)
    before.first_token_ns = before.start_ns + int(0.1 * 1e9)
    assert fleet.left(5.0) == {"a"}


def test_one_in_time_between_two_late_ones_speaks_for_the_endpoint() -> None:
    fleet = usual()
    fleet.answers("a", 1.0, 1.5)
    fleet.answers("a", 2.6, 0.1)
    fleet.answers("a", 2.8, 1.5)
    assert fleet.left(4.4) == set()


def test_stuck_requests_say_nothing_while_others_are_served() -> None:
    fleet = usual()
    for _ in range(2):
        fleet.begins("a", 1.0)
    fleet.answers("a", 1.1, 0.1)
    assert fleet.left(5.0) == set()


class Two:
    """Two processes before the same endpoints, each of which hears what the other sees."""

    def __init__(self) -> None:
        self.one, self.other = usual(), usual()
        self.one.paces.others = lambda name, now_s: self._seen(self.other, name, now_s)
        self.other.paces.others = lambda name, now_s: self._seen(self.one, name, now_s)

    def _seen(self, fleet: Fleet, name: str, now_s: float) -> list[Late]:
        found = fleet.paces.late(now_s).get(name)
        return [] if found is None else [found]


def test_what_another_process_saw_counts() -> None:
    """One late first token in each of two."""
    both = Two()
    both.one.answers("a", 1.0, 1.5)
    assert both.one.left(2.5) == both.other.left(2.5) == set()
    both.other.begins("a", 2.6)
    assert both.other.left(3.6) == {"a"}
    assert both.one.left(3.7) == {"a"}, "it has none that began after the other's"


def test_who_leaves_it_for_being_slower_than_its_peers_tells() -> None:
    """Five times their time is not far too late, but three of five are a habit."""
    both = Two()
    for start_s in (1.0, 1.6, 2.2):
        both.one.answers("a", start_s, 0.5)
    assert both.one.left(3.0) == {"a"}
    assert both.other.left(3.1) == {"a"}


def test_what_was_in_time_here_contradicts_what_another_process_saw() -> None:
    """The way there is slow from the other process, not the endpoint."""
    both = Two()
    for start_s in (1.0, 2.6):
        both.other.answers("a", start_s, 1.5)
    both.one.answers("a", 2.0, 0.1)
    assert both.other.left(4.2) == {"a"}
    assert both.one.left(4.2) == set()


def test_who_was_taken_back_is_not_left_again_for_what_was_before() -> None:
    """Another process may still tell of what made both of them leave it."""
    fleet = usual()
    fleet.paces.others = lambda name, _: [Late(2, 1.0)] if name == "a" else []
    assert fleet.left(4.2) == {"a"}
    assert fleet.left(9.3) == set()


def test_who_comes_back_is_judged_anew() -> None:
    fleet = Fleet("abcd")
    for name in "abcd":
        for _ in range(5):
            fleet.answers(name, 0.0, 2.0 if name == "a" else 0.1)
    assert fleet.left(2.0) == {"a"}
    assert fleet.left(6.9) == {"a"}
    assert fleet.left(7.1) == set()
    for _ in range(5):
        fleet.answers("a", 7.2, 2.0)
    assert fleet.left(9.3) == {"a"}
    assert fleet.left(9.3 + 9.9) == {"a"}, "twice as long this time"
    assert fleet.left(9.3 + 10.1) == set()


def test_queued_work_explains_a_late_first_token() -> None:
    """Ten requests sent to one endpoint at once are served one after the other."""
    fleet = Fleet("abc")
    for name in "bc":
        for _ in range(5):
            fleet.answers(name, 0.0, 0.2)
    traces = [fleet.begins("a", 0.0) for _ in range(10)]
    for n, trace in enumerate(traces, 1):
        trace.first_token_ns = trace.start_ns + int(0.2 * n * 1e9)
    assert fleet.left(2.1) == set()


def test_the_forecast_is_the_peers() -> None:
    fleet = Fleet("abc")
    assert fleet.paces.expected_s(fleet.of["a"], 488) is None
    for name in "bc":
        for _ in range(5):
            fleet.answers(name, 0.0, 0.2)
    fleet.left(1.0)
    assert fleet.paces.expected_s(fleet.of["a"], 488) == pytest.approx(0.2)
    assert fleet.paces.expected_s(fleet.of["a"], 1488) == pytest.approx(0.4)

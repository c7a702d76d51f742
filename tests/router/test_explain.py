"""What is kept of decisions, how it is found, and how it is told."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from model_registry.entities import Endpoint, Model
from router.explain import Considered, Decisions, Explained, as_dict, line
from router.pick import Candidate, Decision
from router.profiles import Wish
from router.view import EndpointView
from tests.router.test_outliers import endpoint

WISH = Wish(Model(name="m", context_length=10), "balanced", "default")
A, B, C = (endpoint(name) for name in "abc")
ID = "0123456789abcdef01234567"


def considered(chosen: Endpoint | None = A) -> Considered:
    def candidate(one: Endpoint, prefill_tokens: int = 0, admits: bool = True) -> Candidate:
        view = EndpointView(one.name, 8, prefill_tokens=prefill_tokens)
        return Candidate(one, view, one.profile, one.state == "ready", admits)

    choices = [
        candidate(A, 100),
        candidate(B, 900),
        candidate(C, admits=False),
        candidate(endpoint("d").model_copy(update={"state": "unhealthy"})),
        candidate(endpoint("e")),
        candidate(endpoint("f")),
    ]
    decision = Decision(chosen, "profile", {"a": 0.9, "b": 0.4} if chosen else {}, "product")
    return Considered(decision, choices, frozenset("e"), frozenset("f"))


def explained(request_id: str = f"{ID}-0", attempt: int = 1, **changed: object) -> Explained:
    base = Explained(1.0, request_id, WISH, attempt, False, 0.0025, None, considered())
    return replace(base, **changed)


def test_the_ring_forgets_the_oldest() -> None:
    decisions = Decisions(3)
    for n in range(5):
        decisions.keep(explained(attempt=n))
    assert [one.attempt for one in decisions.find(None, None, 10)] == [4, 3, 2]
    assert [one.attempt for one in decisions.find(None, None, 2)] == [4, 3]
    off = Decisions(0)
    off.keep(explained())
    assert off.find(None, None, 10) == []


@pytest.mark.parametrize("asked", [ID, f"chatcmpl-{ID}", f"{ID}-0", f"msg_{ID}"])
def test_a_request_is_found_by_the_id_its_client_was_told(asked: str) -> None:
    decisions = Decisions(10)
    decisions.keep(explained())
    decisions.keep(explained("f" * 24 + "-0"))
    assert [one.request_id for one in decisions.find(asked, None, 10)] == [f"{ID}-0"]
    assert decisions.find("e" * 24, None, 10) == []


def test_a_model_is_found_by_its_name() -> None:
    decisions = Decisions(10)
    decisions.keep(explained())
    assert len(decisions.find(None, "m", 10)) == 1
    assert decisions.find(None, "n", 10) == []


def test_every_candidate_says_why_it_was_not_taken() -> None:
    told = as_dict(explained(), {"f": "slow: 9.0 times"}.get)
    assert (told["endpoint"], told["reason"], told["wait_ms"]) == ("a", "profile", 2.5)
    assert {one["endpoint"]: (one["score"], one["not_taken"]) for one in told["candidates"]} == {
        "a": (0.9, None),
        "b": (0.4, None),
        "c": (None, "its breaker is open"),
        "d": (None, "unhealthy"),
        "e": (None, "tried, or cannot carry the request"),
        "f": (None, "slow: 9.0 times"),
    }
    assert told["candidates"][0]["prefill_tokens"] == 100


def test_what_was_never_decided_is_told_as_such() -> None:
    told = as_dict(explained(considered=None), {}.get)
    assert (told["endpoint"], told["reason"]) == (None, "gone_before_decided")


def test_the_header_is_one_line_of_plain_characters() -> None:
    assert line([explained()], None) == (
        "endpoint=a; policy=product; reason=profile; scores=a:0.9 b:0.4; wait_ms=2.5; attempts=1"
    )
    odd = A.model_copy(update={"name": "ä\r\nx: y"})
    assert line([explained(considered=considered(odd))], None).startswith("endpoint=\\xe4  x: y; ")
    none = line([explained(considered=considered(None))], None)
    assert none.startswith("endpoint=none; ")


def test_the_header_counts_attempts_and_names_who_answered() -> None:
    """A hedge is an attempt, and may have lost."""
    newest_first = [
        explained(attempt=2, is_hedge=True, considered=considered(B)),
        explained(attempt=2),
        explained(attempt=1),
    ]
    assert line(newest_first, None).startswith("endpoint=a; ")
    told = line(newest_first, "b")
    assert told.startswith("endpoint=b; ")
    assert told.endswith("attempts=3")


def test_the_header_has_a_part_for_each_of_the_first_choices() -> None:
    told = line([explained(f"{ID}-{n}") for n in range(9)], "b")
    assert [part.split(";")[0] for part in told.split(", ")] == ["endpoint=a"] * 4

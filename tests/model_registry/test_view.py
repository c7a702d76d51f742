"""A view follows one history only, and believes an empty registry only where deletions led there."""

from __future__ import annotations

from model_registry.changes import NOWHERE, Change, ChangeRecord, Contents, Position
from model_registry.entities import Model
from model_registry.kinds import ref_of
from model_registry.view import View

MODEL = Model(name="m", context_length=1)
HERE = Position("history", 7, "7-0")


def view() -> View:
    return View(HERE, {ref_of(MODEL): MODEL})


def record(lineage: str, version: int, previous: str) -> ChangeRecord:
    return ChangeRecord(
        Position(lineage, version, f"{version}-0"), previous, (Change(("Model", "n"), MODEL),)
    )


def test_the_next_record_of_the_same_history_is_applied() -> None:
    following = view()
    assert following.follow([record("history", 8, "7-0"), record("history", 9, "8-0")])
    assert following.snapshot.version == 9


def test_a_record_that_does_not_continue_the_history_is_refused_whole() -> None:
    for stranger in (
        record("history", 9, "7-0"),
        record("history", 8, "7-1"),
        record("other", 8, "7-0"),
        record("history", 7, "6-0"),
    ):
        following = view()
        before = following.snapshot
        assert not following.follow([record("history", 8, "7-0"), stranger])
        assert not following.follow([stranger])
        assert following.snapshot is before


def test_nothing_new_makes_no_new_snapshot() -> None:
    following = view()
    before = following.snapshot
    following.adopt(Contents(HERE, {ref_of(MODEL): MODEL}, 0), 2.0)
    assert following.snapshot is before


def test_an_empty_registry_is_believed_by_its_records_or_by_later_versions_only() -> None:
    for position, believed in (
        (Position("history", 8, "8-0"), True),
        (HERE, False),
        (Position("history", 6, "6-0"), False),
        (Position("other", 99, "99-0"), False),
        (NOWHERE, False),
    ):
        following = view()
        following.adopt(Contents(position, {}, 0), 2.0)
        assert (following.held_back is None) == believed, position
        assert ("m" in following.snapshot.models) != believed


def test_while_held_back_nothing_is_followed_until_everything_was_read_anew() -> None:
    following = view()
    following.adopt(Contents(NOWHERE, {}, 0), 2.0)
    assert not following.follow([record("new", 1, "0-0")])
    other = MODEL.model_copy(update={"name": "other"})
    following.adopt(Contents(Position("new", 1, "1-0"), {ref_of(other): other}, 0), 3.0)
    assert following.held_back is None
    assert list(following.snapshot.models) == ["other"]

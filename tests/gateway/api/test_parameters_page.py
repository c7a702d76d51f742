"""The page about parameters says what the code does."""

from __future__ import annotations

from tools.parameters_page import PAGE, page


def test_the_page_is_made_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tools.parameters_page`"


def test_what_it_says_of_some_fields() -> None:
    rows = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[3:8]] for line in _rows()}
    assert rows["logit_bias"] == ["yes", "yes", "yes", "no", "no"]
    assert rows["min_p"] == ["no"] * 4 + ["yes"]
    assert rows["stop"] == ["yes"] * 5
    assert rows["user"] == ["no effect"] * 5


def _rows() -> list[str]:
    return [line for line in page().splitlines() if line.startswith("| `")]

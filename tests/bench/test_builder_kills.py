"""Builders may be killed at any moment: the campaign of `bench.builder_kills`, in small."""

from __future__ import annotations

import asyncio

from bench.builder_kills import campaign


def test_an_engine_is_built_once_and_whole_while_builders_are_killed() -> None:
    """Three kills, and one builder that wakes up when another one has its build."""
    result = asyncio.run(campaign(kills=3, freezes=1, seed=1))
    assert [name for name, well in result["checks"].items() if not well] == [], result
    assert (result["kills"], result["freezes"]) == (3, 1)
    assert result["builds_taken_up_again"] > 0

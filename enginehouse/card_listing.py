"""Cards and what forecasts have learned since, as `get` and `describe` show them side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from enginehouse.api import ask_workers
from enginehouse.connection import Connection
from enginehouse.objects import Objects

Told = Mapping[str, Any]
"""One endpoint's forecast, as one worker tells it (`gateway.forecasts`)."""

FIGURES: Mapping[str, tuple[str, str, float]] = {
    "prefill_tokens_per_s": ("prefill", "tokens/s", 1.0),
    "overhead_s": ("overhead", "ms", 1000.0),
    "step_s": ("step, batch of one", "ms", 1000.0),
    "step_per_request_s": ("step, each more", "ms", 1000.0),
}
"""By field: what it is called for people, its unit, and that unit's factor."""
_OF_TTFT = ("prefill_tokens_per_s", "overhead_s")


async def forecasts(connection: Connection) -> list[Told]:
    """What every worker of the gateway has learned of every endpoint."""
    return [one for answer in await ask_workers(connection, "forecasts") for one in answer["forecasts"]]


def learned(told: Iterable[Told]) -> dict[str, Any] | None:
    """What several forecasts come to together, weighted by what each has seen; None: nothing was seen yet."""
    rows = [one["learned"] for one in told]
    found: dict[str, Any] = {}
    for kind in ("ttft", "itl"):
        seen = sum(row[f"{kind}_seen"] for row in rows)
        ages = [row[f"{kind}_age_s"] for row in rows if row[f"{kind}_age_s"] is not None]
        found |= {f"{kind}_seen": seen, f"{kind}_age_s": min(ages, default=None)}
        if seen:
            for field in FIGURES:
                if (field in _OF_TTFT) == (kind == "ttft"):
                    found[field] = sum(row[field] * row[f"{kind}_seen"] for row in rows) / seen
    return found if found["ttft_seen"] or found["itl_seen"] else None


def is_card(value: object) -> bool:
    """Whether this is a goodput card, as JSON has it."""
    return isinstance(value, dict) and "prefill_tokens_per_s" in value and "source" in value


def one_line(card: Told) -> str:
    """A card in one cell of a table."""
    goodput = card["goodput"]
    rate = "" if goodput is None else f"{goodput['requests_per_s']:.3g} req/s, "
    return f"{rate}{_brief(card)} ({card['source']} {card['date']}, {card['gpu_class']})"


def one_line_learned(found: Told | None) -> str | None:
    """The same of what was learned, with the age of its latest part."""
    if found is None:
        return None
    ages = [age for age in (found["ttft_age_s"], found["itl_age_s"]) if age is not None]
    return f"{_brief(found)} ({min(ages):.0f} s ago)"


def _brief(figures: Told) -> str:
    parts = []
    if "prefill_tokens_per_s" in figures:
        parts.append(f"{figures['prefill_tokens_per_s']:,.0f} prompt tok/s")
    if "step_s" in figures:
        parts.append(f"step {1000 * figures['step_s']:.3g} ms")
    return ", ".join(parts)


def side_by_side(card: Told | None, told: Sequence[Told]) -> list[str]:
    """Lines for one endpoint or deployment: each figure of its card beside what was learned, with ages."""
    found = learned(told)
    if card is None and found is None:
        return ["  no card, and nothing seen yet"]
    since = "nothing seen yet" if found is None else _seen(found)
    source = "no card" if card is None else f"{card['source']} {card['date']}"
    lines = [f"  {'':22}{source:>24}{'learned':>16}   {since}"]
    for field, (name, unit, factor) in FIGURES.items():
        cells = [_figure(None if side is None else side.get(field), factor) for side in (card, found)]
        lines.append(f"  {name:22}{cells[0]:>24}{cells[1]:>16}   {unit}")
    if card is not None and card["goodput"] is not None:
        lines.append(f"  goodput: {_goodput(card['goodput'])}")
    return lines


def of_object(objects: Objects, related: Sequence[Objects], told: Sequence[Told]) -> list[str]:
    """Lines for a profile, deployment or endpoint: the cards that are its, one after the other."""
    item = objects.items[0]
    if objects.kind == "Profile":
        mine = [one for kind in related for one in kind.items if one["profile"] == item["name"]]
    else:
        mine = [item]
    field = "endpoint" if objects.kind == "Endpoint" else "deployment"
    lines = ["goodput cards:"]
    for one in mine:
        of_one = [row for row in told if row[field] == one["name"]]
        lines += [f"  {one['name']}", *side_by_side(one["card"], of_one)]
    return lines if mine else [*lines, "  none: no deployment has this profile"]


def _seen(found: Told) -> str:
    parts = [
        f"{found[f'{kind}_seen']} {what}, the last {found[f'{kind}_age_s']:.0f} s ago"
        for kind, what in (("ttft", "first tokens"), ("itl", "answers"))
        if found[f"{kind}_seen"]
    ]
    return "; ".join(parts)


def _figure(value: float | None, factor: float) -> str:
    if value is None:
        return "-"
    shown = value * factor
    return f"{shown:,.0f}" if shown >= 1000 else f"{shown:.3g}"


def _goodput(goodput: Told) -> str:
    return (
        f"{goodput['requests_per_s']:.3g} requests/s, {goodput['tokens_per_s']:.4g} tokens/s of "
        f"{goodput['prompt_tokens']} + {goodput['output_tokens']} tokens, the first within "
        f"{goodput['ttft_s']:g} s and {goodput['itl_s']:g} s between two"
    )

"""Which waiting inputs go together: those of like length, so that little of a call is padding. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def choose(lengths: Sequence[int], most_inputs: int, most_tokens: int) -> list[int]:
    """Indexes of one request batch, shortest input first.

    The first input, which has waited longest, is always among them; its neighbours in length join it as long
    as the padded whole has no more than `most_tokens`.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    low = high = order.index(0)
    while high - low + 1 < most_inputs:
        count = high - low + 2
        shorter = low > 0 and lengths[order[high]] * count <= most_tokens
        longer = high + 1 < len(order) and lengths[order[high + 1]] * count <= most_tokens
        if longer and shorter:
            up = lengths[order[high + 1]] - lengths[order[high]]
            shorter = lengths[order[high]] - lengths[order[low - 1]] < up
        if shorter:
            low -= 1
        elif longer:
            high += 1
        else:
            break
    return order[low : high + 1]

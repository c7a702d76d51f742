"""Stop strings in streamed text, across any chunk border."""

from __future__ import annotations


class StopMatcher:
    """Lets text through up to the first stop string; holds back only what may be the beginning of one.

    The first is the one that is complete first, so that it does not matter in which pieces the text comes.
    """

    __slots__ = ("_held", "_keep", "_longest", "_stops", "met", "read")

    def __init__(self, stops: tuple[str, ...], keep: bool = False) -> None:
        """`keep`: the stop string itself stays in the text."""
        self._stops = stops
        self._keep = keep
        self._longest = max(map(len, stops))
        self._held = ""
        self.read = 0
        """Characters of the last push up to the end of the stop string that it met."""
        self.met: str | None = None
        """The stop string that was met."""

    def push(self, text: str) -> tuple[str, bool]:
        """Text that may go out now, and whether a stop string was met (it is cut off, with all after it)."""
        held = len(self._held)
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            end, start, self.met = min(found)
            self._held = ""
            self.read = end - held
            return text[: end if self._keep else start], True
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back, once it is certain that no stop string follows."""
        text, self._held = self._held, ""
        return text

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0

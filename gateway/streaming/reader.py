"""Reader: text that comes in pieces, read as if it were whole.

A parser is a generator that waits for more text wherever it needs some, so that chunk borders cannot matter
to it. It reads ahead of what it has passed; `retreat` goes back to there when a form turns out to be another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from gateway.streaming.json_span import JsonSpan
from gateway.streaming.parts import Part, Text

_T = TypeVar("_T")
Steps = Generator[None, None, _T]
"""A reading under way; it yields to wait for more text."""
MAX_HELD_CHARACTERS = 65_536
"""Most text that is held back to find out what it is; beyond it, it is text."""


class Reader:
    """The text of one choice from where it was last passed, and the parts made of what was."""

    __slots__ = ("_at", "_ended", "_parts", "_start", "_text")

    def __init__(self) -> None:
        self._text = ""
        self._start = 0
        """Everything before it has been passed."""
        self._at = 0
        """Next character to read."""
        self._ended = False
        self._parts: list[Part] = []

    @property
    def held(self) -> int:
        """Characters that were read and not passed."""
        return self._at - self._start

    def feed(self, text: str) -> None:
        """Take new text."""
        self._text = self._text[self._start :] + text
        self._at -= self._start
        self._start = 0

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True

    def rest(self) -> str:
        """All that was not passed, for another to read."""
        text = self._text[self._start :]
        self._start = self._at = len(self._text)
        return text

    def take(self) -> list[Part]:
        """The parts that were given since the last call."""
        taken, self._parts = self._parts, []
        return taken

    def give(self, part: Part) -> None:
        self._parts.append(part)

    def passed(self) -> None:
        """What was read up to here is done with."""
        self._start = self._at

    def retreat(self) -> None:
        """Read again from where everything was passed."""
        self._at = self._start

    def give_back(self, word: str) -> None:
        """`word`, which was read first since `passed`, is text after all; what follows is read anew."""
        self.give(Text(word))
        self._start += len(word)
        self._at = self._start

    def more(self) -> Steps[bool]:
        """Wait for more text; False once nothing more comes."""
        unread = len(self._text) - self._at
        while len(self._text) - self._at == unread:
            if self._ended:
                return False
            yield
        return True

    def peek(self) -> Steps[str]:
        """The next character; empty at the end."""
        while self._at >= len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def skip(self, among: str) -> Steps[bool]:
        """Read the next character if it is one of `among`."""
        char = yield from self.peek()
        if not char or char not in among:
            return False
        self._at += 1
        return True

    def skip_space(self) -> Steps[None]:
        while (yield from self.peek()).isspace() and self.held < MAX_HELD_CHARACTERS:
            self._at += 1

    def drop_space(self, marks: tuple[str, ...]) -> Steps[None]:
        """Pass white space where one of `marks` follows it; else nothing is read."""
        yield from self.skip_space()
        for mark in marks:
            if (yield from self.word(mark)):
                self._at -= len(mark)
                self.passed()
        self.retreat()

    def word(self, word: str) -> Steps[bool]:
        """Read `word` if it comes next."""
        while len(self._text) - self._at < len(word) and word.startswith(self._text[self._at :]):
            if not (yield from self.more()):
                return False
        if not self._text.startswith(word, self._at):
            return False
        self._at += len(word)
        return True

    def run(self, fits: Callable[[str], bool], most: int) -> Steps[str]:
        """Read characters while they fit; at most `most` of them."""
        read = ""
        while len(read) < most and (char := (yield from self.peek())) and fits(char):
            read += char
            self._at += 1
        return read

    def value(self) -> Steps[str | None]:
        """Read a JSON value; None where there is none, or it is too long to be held back."""
        begun = self.held
        span = JsonSpan()
        while True:
            self._at = span.feed(self._text, self._at)
            if span.broken or self.held > MAX_HELD_CHARACTERS:
                return None
            if span.done:
                return self._text[self._start + begun : self._at]
            if not (yield from self.more()):
                return None

    def pass_value(self, make: Callable[[str], Part]) -> Steps[bool]:
        """Give a JSON value away as it comes, in parts made by `make`; False where it breaks off."""
        span = JsonSpan()
        while True:
            self._at = span.feed(self._text, self._start)
            if self._at > self._start:
                self.give(make(self._text[self._start : self._at]))
                self.passed()
            if span.done or span.broken:
                return span.done
            if not (yield from self.more()):
                return False

    def until(self, marks: tuple[str, ...], make: Callable[[str], Part] = Text) -> Steps[str | None]:
        """Give text away up to the first of `marks`, which is read; None at the end of the text."""
        while True:
            found = [(at, mark) for mark in marks if (at := self._text.find(mark, self._start)) >= 0]
            if found:
                at, mark = min(found)
                self._give_up_to(at, make)
                self._at = at + len(mark)
                return mark
            self._give_up_to(len(self._text) - self._beginning(marks), make)
            if not (yield from self.more()):
                self._give_up_to(len(self._text), make)
                return None

    def _give_up_to(self, end: int, make: Callable[[str], Part]) -> None:
        if end > self._start:
            self.give(make(self._text[self._start : end]))
        self._start = self._at = end

    def _beginning(self, marks: tuple[str, ...]) -> int:
        """Length of the longest end of the text that begins a mark."""
        longest = min(max(map(len, marks), default=1) - 1, len(self._text) - self._start)
        for length in range(longest, 0, -1):
            tail = self._text[-length:]
            if any(mark.startswith(tail) for mark in marks):
                return length
        return 0

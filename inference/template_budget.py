"""What one rendering of a chat template may use: time, and size of what it makes.

Everything a template can do passes one of these checks before it is done: they are what keeps a rendering
from holding up the process. A check costs a fraction of a microsecond.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sized
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from itertools import islice
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

MAX_PROMPT_CHARACTERS = 16_000_000
"""Longest rendered prompt; far above any context length."""
MAX_ITEMS = 20_000
"""Items of what a template makes, sorts or turns into a list."""
_ITEM_CHARACTERS = 64
"""What a collection and each of its items counts, besides their text: about the memory that one takes."""
_ON_LOOP_CHARACTERS = 1_000_000
_ON_LOOP_ITEMS = 5_000
_YIELD_EVERY_S = 0.001
_YIELD_S = 0.0002
_LIGHT = (str, int, float, bool, type(None))
_MAX_BITS = 65_536


class TooMuchError(TemplateError):
    """The rendering takes too long or grows too large."""


class TooLongError(TooMuchError):
    """The rendering takes longer than it may."""


class Budget:
    """What one rendering may use.

    `on_loop`: nothing may take long, and what would is a TooLongError at once; else it runs in a thread, and
    now and then lets the event loop go first.
    """

    __slots__ = ("_deadline_s", "_limit_s", "_on_loop", "_yield_at_s")

    def __init__(self, limit_s: float, on_loop: bool) -> None:
        now_s = time.monotonic()
        self._limit_s = limit_s
        self._deadline_s = now_s + limit_s
        self._on_loop = on_loop
        self._yield_at_s = float("inf") if on_loop else now_s + _YIELD_EVERY_S

    def check_time(self) -> None:
        """Raises TooLongError past the limit."""
        now_s = time.monotonic()
        if now_s > self._deadline_s:
            raise TooLongError(f"rendering takes longer than {self._limit_s:g} s")
        if now_s > self._yield_at_s:
            time.sleep(_YIELD_S)  # else this thread gives the interpreter up only every 5 ms
            self._yield_at_s = time.monotonic() + _YIELD_EVERY_S

    def check_size(self, size: int) -> None:
        """Refuse a text of `size` characters, should it be longer than any prompt."""
        if size > MAX_PROMPT_CHARACTERS:
            raise TooMuchError(f"the prompt is longer than {MAX_PROMPT_CHARACTERS} characters")
        if size > _ON_LOOP_CHARACTERS and self._on_loop:
            raise TooLongError("the text is long")

    def check_items(self, count: int) -> None:
        """Refuse a collection of `count` items."""
        if count > MAX_ITEMS:
            raise TooMuchError(f"the template handles more than {MAX_ITEMS} items at once")
        if count > _ON_LOOP_ITEMS and self._on_loop:
            raise TooLongError("the items are many")


budget: ContextVar[Budget] = ContextVar("chat_template_budget")
"""Of the rendering under way."""


def check_time() -> None:
    budget.get().check_time()


def metered(items: Iterable[Any]) -> Iterator[Any]:
    """`items`, with a look at the time before each."""
    check = budget.get().check_time
    for item in items:
        check()
        yield item


def check_size(size: int) -> None:
    budget.get().check_size(size)


def check_items(count: int) -> None:
    budget.get().check_items(count)


def weighed(value: Any) -> Any:
    """`value`, unless its text would be longer than any prompt.

    Items that are the same object count every time, as they do when they are printed or compared: twenty
    lists, each holding the one before twice, are a million items.
    """
    if value.__class__ is str or isinstance(value, _LIGHT):
        return value
    weight, waiting, check = 0, [value], budget.get().check_time
    while waiting:
        item = waiting.pop()
        if isinstance(item, _LIGHT):
            weight += len(item) if isinstance(item, str) else 0
            continue
        inside = _inside(item)
        if inside is not None:
            weight += _ITEM_CHARACTERS * (1 + len(inside))
            check_size(weight)
            check()
            waiting.extend(inside)
    check_size(weight)
    return value


def _inside(item: Any) -> Any:
    if isinstance(item, dict | Mapping):  # the first is the quick one
        return item.values()
    if isinstance(item, list | tuple | AbstractSet | MappingView):
        return item
    if isinstance(item, Namespace):
        return item._Namespace__attrs.values()  # noqa: SLF001  # as its own `__repr__` does
    return None


def gathered(items: Iterable[Any]) -> Any:
    """`items`, as a list where they come one by one, unless they are too many."""
    if isinstance(items, Sized):
        check_items(len(items))
        return items
    kept = list(islice(metered(items), MAX_ITEMS + 1))
    check_items(len(kept))
    return kept


def joined(values: Iterable[Any], separator: str = "") -> str:
    """The texts of `values`, one after the other; what a template writes with `~` or `join`."""
    parts: list[str] = []
    size, between = 0, len(separator)
    for value in values:
        part = value if value.__class__ is str else str(weighed(value))
        size += len(part) + between
        if size > _ON_LOOP_CHARACTERS:  # the least that any rendering may make
            check_size(size)
        parts.append(part)
    return separator.join(parts)


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Before `left operator right`."""
    if operator == "+":
        _check_sum(left, right)
    elif operator == "*":
        _check_product(left, right)
    elif operator == "**" and not (_is_small(left) and _is_small(right)):
        raise TooMuchError("the template raises to too high a power")
    elif operator == "%" and isinstance(left, str | bytes):
        raise TooMuchError("the template formats with %; use ~ or format")


def _check_sum(left: Any, right: Any) -> None:
    if left.__class__ is str and right.__class__ is str:
        budget.get().check_size(len(left) + len(right))
    elif isinstance(left, Sized) and isinstance(right, Sized):
        _check_made(left, len(left) + len(right))


def _check_product(left: Any, right: Any) -> None:
    sized, times = (left, right) if isinstance(left, Sized) else (right, left)
    if isinstance(sized, Sized) and isinstance(times, int):
        _check_made(sized, len(sized) * times)
    elif (
        isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() + right.bit_length() > _MAX_BITS
    ):
        raise TooMuchError("the template multiplies too large numbers")


def _check_made(like: Sized, length: int) -> None:
    if isinstance(like, str | bytes):
        check_size(length)
    else:
        check_items(length)


def _is_small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 4096

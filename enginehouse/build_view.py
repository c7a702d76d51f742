"""How a build is shown while it runs: live with a bar on a terminal, as plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from engine_builder.build import Progress

_TAIL = 8
_SPAN = 1000


class BuildView:
    """An observer of a build; use as `with`. `title` stands before the bar."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._said: tuple[str, str] | None = None
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[times]}"),
        )
        self._task = self._bar.add_task(title, total=_SPAN, times="")
        self._title = title
        self._live = Live(self, console=self._console, transient=True) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> Group:
        """The bar, and under it the end of the log."""
        width = self._console.width
        return Group(self._bar, *(Text(line[:width], style="dim") for line in self._tail))

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, progress: Progress) -> None:
        """Moves the bar; off a terminal, one line where a step begins, is skipped or ends."""
        what = f"step {progress.number} of {progress.steps}, {progress.step}"
        if self._live is not None:
            shown = f"{self._title}: {what}, {progress.phase}"
            at = round(progress.share * _SPAN)
            self._bar.update(self._task, description=shown, completed=at, times=_times(progress))
        elif (progress.step, progress.phase) != self._said:
            self._said = (progress.step, progress.phase)
            self.say(f"{what}: {progress.phase} ({_times(progress)})")

    def line(self, step: str, text: str) -> None:
        """A line of a step's log."""
        if self._live is not None:
            self._tail.append(f"{step} | {text}")
        else:
            self.say(f"{step} | {text}")


def _times(progress: Progress) -> str:
    taken = spelled(progress.elapsed_s)
    return taken if progress.eta_s is None else f"{taken}, about {spelled(progress.eta_s)} left"


def spelled(seconds: float) -> str:
    """`42 s`, `5 min 03 s` or `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"

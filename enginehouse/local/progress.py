"""Progress: what is being started, live on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text


class SecondsColumn(ProgressColumn):
    """How long a step has taken, in seconds."""

    def render(self, task: Task) -> Text:
        """With one decimal."""
        elapsed_s = task.finished_time if task.finished else task.elapsed
        return Text(f"{elapsed_s or 0.0:5.1f} s", style="progress.elapsed")


class Steps:
    """Steps of a start; several may run at once. Use as `with`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Progress(
                SpinnerColumn(finished_text="[green]✓[/]"),
                TextColumn("{task.description}"),
                SecondsColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Steps:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show `what` as under way, then as done with the seconds it took."""
        begun_s = time.monotonic()
        task = self._live.add_task(what, total=1) if self._live is not None else None
        yield
        if self._live is not None and task is not None:
            self._live.update(task, completed=1)
        else:
            self.say(f"{what}: ready after {time.monotonic() - begun_s:.1f} s")

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

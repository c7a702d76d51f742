"""What stops a build, a package or a store, as what stops a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine_builder.errors import BuilderError, StepError
from enginehouse.errors import CommandError

_LOG_LINES_SHOWN = 15


@contextmanager
def told() -> Iterator[None]:
    """Turns the one into the other: with the end of a step's log, the file at fault, and what to do."""
    try:
        yield
    except BuilderError as error:
        log_end = error.log_end if isinstance(error, StepError) else ""
        raise CommandError(str(error), explained(error.remedy, log_end) or None) from error
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise CommandError(
            f"{where}{error.strerror or error}", "check free space and permissions there"
        ) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"a file that should be text is not UTF-8: {error}") from error


def explained(remedy: str, log_end: str) -> str:
    """What to do, below the end of the log."""
    shown = [f"| {line}" for line in log_end.splitlines()[-_LOG_LINES_SHOWN:]]
    return "\n".join([*shown, *remedy.splitlines()])

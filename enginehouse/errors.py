"""What stops a command, said in one sentence with what to do about it.

CommandError
├── MachineError    the machine lacks something: a port, a binary, memory
├── BusyError       another `up` holds the state directory
├── ProcessError    a process of the local stack did not start or went away
├── SettingsError   a setting is wrong, unknown or at odds with another
└── ApiError        the gateway refused a call, or could not be reached
"""

from __future__ import annotations

import sys


class CommandError(Exception):
    """A command cannot go on. `remedy` says what the operator can do; shown under the message."""

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class MachineError(CommandError):
    """The machine lacks something that the command needs."""


class BusyError(CommandError):
    """Another `up` holds the state directory."""


class ProcessError(CommandError):
    """A process of the local stack did not start, or went away."""


class SettingsError(CommandError):
    """A setting is wrong, unknown, or at odds with another one."""

    exit_code = 2


class ApiError(CommandError):
    """The gateway refused a call or could not be reached. `status` is None when it could not."""

    def __init__(self, message: str, remedy: str | None = None, status: int | None = None) -> None:
        super().__init__(message, remedy)
        self.status = status


def report(error: CommandError) -> None:
    """Say on stderr what stopped the command, and below it what to do."""
    first, *more = error.message.splitlines() or [""]
    sys.stderr.write(f"error: {first}\n")
    for line in more:
        sys.stderr.write(f"       {line}\n")
    for line in (error.remedy or "").splitlines():
        sys.stderr.write(f"  {line}\n")

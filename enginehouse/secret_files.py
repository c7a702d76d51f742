"""Secrets by file: `NAME_FILE` names a file that holds what `NAME` would hold.

So a password or a key is neither in a process's environment nor in the description of its container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from enginehouse.errors import SettingsError

SUFFIX = "_FILE"


def read_secret(variable: str, path: str) -> str:
    """What the file holds, without the line's end; `variable` named it. Raises SettingsError."""
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"{variable}: {path}: {error.strerror}", "name a file that this user can read"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{variable}: {path} is not UTF-8 text", "write the value as plain text"
        ) from error
    if not value:
        raise SettingsError(f"{variable}: {path} is empty", "write the value into it")
    return value


def secret(variable: str, environment: Mapping[str, str]) -> str | None:
    """The value of `variable`, or of the file that `variable` with `_FILE` names. Raises SettingsError."""
    return with_files(environment, [variable]).get(variable)


def with_files(environment: Mapping[str, str], variables: Iterable[str]) -> dict[str, str]:
    """`environment`, with the values of those of `variables` (in capitals) that are set by file in its stead.

    Raises SettingsError for a file that cannot be read, and for a variable that is set both ways.
    """
    known, found = set(variables), dict(environment)
    set_here = {name.upper() for name in environment}
    for name, path in environment.items():
        variable = name.upper().removesuffix(SUFFIX)
        if name.upper() in known or not name.upper().endswith(SUFFIX) or variable not in known:
            continue
        if variable in set_here:
            raise SettingsError(f"{variable} and {variable}{SUFFIX} are both set", "unset one of them")
        found[variable] = read_secret(name, path)
        del found[name]
    return found

"""Fault hooks: ways in which the engine misbehaves on purpose, per request or per model.

A fault is written `kind`, or `slow:MS`:

- `hang`         the request stops moving until it is cancelled; others go on
- `hang_engine`  the step loop stands still until the switch is turned off or the engine closes
- `slow:MS`      every step that the request takes part in lasts MS milliseconds longer
- `error`        the request ends with an error, after its first token
- `error_before` the same, before its first token
- `crash`        the process exits with status 1 instead of delivering the first token
- `wrong_tensor` outputs are marked, so that the serving layer answers with a malformed tensor
- `truncate`     the request ends after its first token, without finish reason or error
- `leak`         per model alone: what it takes of its server's emulated GPU stays taken when it is unloaded
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.engine.errors import InvalidRequestError

_log = logging.getLogger(__name__)

KINDS = ("hang", "hang_engine", "slow", "error", "error_before", "crash", "wrong_tensor", "truncate", "leak")
_FIRES_AFTER_FIRST = ("error", "truncate")
POLL_PERIOD_S = 0.02


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and after how many delivered tokens of the request."""

    kind: str
    after_tokens: int = 0
    delay_ms: float = 0.0

    @classmethod
    def parse(cls, text: str, after_tokens: int | None = None) -> Fault:
        """Reads `kind` or `slow:MS`; raises InvalidRequestError that lists the kinds."""
        kind, _, argument = text.partition(":")
        if kind not in KINDS or bool(argument) != (kind == "slow"):
            raise InvalidRequestError(
                f"fault {text!r} is unknown; one of {', '.join(KINDS)}, slow as slow:MS"
            )
        try:
            delay_ms = float(argument) if argument else 0.0
        except ValueError as error:
            raise InvalidRequestError(f"fault {text!r}: slow takes milliseconds, as in slow:50") from error
        if after_tokens is None:
            after_tokens = 1 if kind in _FIRES_AFTER_FIRST else 0
        return cls(kind, 0 if kind == "error_before" else after_tokens, delay_ms)


@dataclass(frozen=True, slots=True)
class FaultSetting:
    """Contents of a switch file: the fault, how many requests it may hit (None = all), whom it hits."""

    fault: Fault
    count: int | None = None
    match_token_ids: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> FaultSetting | None:
        """None when the file switches everything off (`fault` absent or null)."""
        unknown = fields.keys() - {"fault", "after_tokens", "count", "match_token_ids"}
        if unknown:
            raise InvalidRequestError(f"fault file has unknown keys: {', '.join(sorted(unknown))}")
        if not fields.get("fault"):
            return None
        match = fields.get("match_token_ids")
        return cls(
            fault=Fault.parse(fields["fault"], fields.get("after_tokens")),
            count=fields.get("count"),
            match_token_ids=tuple(match) if match is not None else None,
        )

    def hits(self, tokens: Sequence[int]) -> bool:
        """True when the prompt contains `match_token_ids` in a row, or none were named."""
        word = self.match_token_ids
        if not word:
            return True
        return any(tuple(tokens[at : at + len(word)]) == word for at in range(len(tokens) - len(word) + 1))


class FaultSwitch:
    """A JSON file that turns a fault on and off for a whole model while it runs.

    `{"fault": "error", "after_tokens": 3, "count": 1, "match_token_ids": [5, 6]}`; all but `fault`
    optional. Looked at whenever a request arrives, and every 20 ms while the engine works, by
    modification time; absent means off. A file that cannot be read is logged and changes nothing.
    Used by the step thread only.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.setting: FaultSetting | None = None
        self._seen: tuple[int, int] | None = None
        self._next_look = 0.0
        self._left: int | None = None

    def poll(self, now_please: bool = False) -> bool:
        """Looks at the file when it is time, or now; True when the setting changed."""
        now = time.monotonic()
        if now < self._next_look and not now_please:
            return False
        self._next_look = now + POLL_PERIOD_S
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        return self._read() if stamp else self._set(None)

    def take(self, tokens: Sequence[int]) -> Fault | None:
        """The fault for a request with this prompt, counted against `count`."""
        setting = self.setting
        if setting is None or setting.fault.kind == "leak" or self._left == 0 or not setting.hits(tokens):
            return None
        if self._left is not None:
            self._left -= 1
        return setting.fault

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size

    def _read(self) -> bool:
        try:
            return self._set(FaultSetting.parse(json.loads(self.path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, InvalidRequestError) as error:
            _log.warning("fault file ignored", extra={"path": str(self.path), "error": str(error)})
            return False

    def _set(self, setting: FaultSetting | None) -> bool:
        self.setting = setting
        self._left = setting.count if setting else None
        return True

"""Script: answers that are written down, for what the small models cannot say by themselves.

The file holds `{"answers": [{"when": TEXT, "say": TEXT}, …]}`. The answer whose `when` stands last in the
prompt is given, token by token by the engine as any other, the end token included; a prompt with none of them
is answered by the model. A broken stream that goes on elsewhere is not continued but answered anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from emulator.engine.tokenizer import EngineTokenizer

_log = logging.getLogger(__name__)


class Script:
    """A script file, read again when it has changed; absent means no script. Used by the step thread only."""

    def __init__(self, path: str | Path, tokenizer: EngineTokenizer) -> None:
        self._path = Path(path)
        self._tokenizer = tokenizer
        self._seen: tuple[int, int] | None = None
        self._answers: tuple[tuple[str, str], ...] = ()

    def answer(self, prompt: Sequence[int]) -> tuple[int, ...] | None:
        """The tokens to answer `prompt` with; None where the model answers."""
        self._look()
        if not self._answers:
            return None
        text = self._tokenizer.decode(prompt, skip_special_tokens=False)
        at, said = max((text.rfind(when), said) for when, said in self._answers)
        if at < 0:
            return None
        return (*self._tokenizer.encode(said, add_special_tokens=False), self._tokenizer.eos_id)

    def _look(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._answers = None, ()
            return
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            read = json.loads(self._path.read_text(encoding="utf-8"))
            self._answers = tuple((answer["when"], answer["say"]) for answer in read["answers"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("script file ignored", extra={"path": str(self._path), "error": str(error)})

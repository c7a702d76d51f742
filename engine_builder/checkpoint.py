"""Checkpoint: source weights, tokenizer and config in Hugging Face's layout, and their digest.

A folder, or a URL that fsspec opens. The digest covers every file's name and content, weights included:
TensorRT-LLM's own build cache goes by the path and does not notice that weights have changed under it
(contract sheet §4.5). Hashing 140 GB takes minutes, so digests of files are remembered by size and time of
modification; whoever puts weights back with their old time gets the old digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from engine_builder.errors import CheckpointError
from engine_builder.shape import Shape
from telemetry.whole_file import write_whole

CONFIG_FILE = "config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tekken.json")
_CHUNK = 8 * 1024 * 1024

Progress = Callable[[int, int], None]
"""Takes bytes hashed and bytes in all."""


@dataclass(slots=True)
class DigestCache:
    """Digests of files by URL, size and time of modification; kept in a JSON file, if one is given."""

    path: Path | None = None
    _known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            try:
                self._known = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                self._known = {}  # of no worth but time

    def get(self, key: str) -> str | None:
        """The digest of a file seen before."""
        return self._known.get(key)

    def put(self, key: str, digest: str) -> None:
        """Remember one, on disk at once: the next file may take minutes."""
        self._known[key] = digest
        if self.path is not None:
            write_whole(self.path, json.dumps(self._known, indent=0))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that has been looked into."""

    url: str
    config: Mapping[str, Any]
    shape: Shape
    files: Mapping[str, int]
    """Sizes in bytes by path below the folder, sorted."""

    @classmethod
    def open(cls, url: str) -> Checkpoint:
        """Lists the files and reads the config. Raises CheckpointError."""
        files = dict(sorted(_list(url)))
        if CONFIG_FILE not in files:
            raise CheckpointError(
                f"{url} holds no {CONFIG_FILE}" if files else f"{url} does not exist or is empty",
                "name the folder of a Hugging Face checkpoint, or a URL of one that fsspec can open",
            )
        try:
            config = json.loads(_read(url, CONFIG_FILE))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{url}/{CONFIG_FILE} is not JSON: {error}", "fetch it again") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{url}/{CONFIG_FILE} is not a JSON object", "fetch it again")
        if not isinstance(config.get("quantization_config") or {}, dict):
            raise CheckpointError(
                f"{url}/{CONFIG_FILE}: quantization_config is no JSON object", "fetch it again"
            )
        return cls(url, config, Shape.of(config, f"{url}/{CONFIG_FILE}"), files)

    def digest(self, cache: DigestCache | None = None, progress: Progress | None = None) -> str:
        """SHA-256 over names and contents of all files, hex. Raises CheckpointError."""
        return self._digest(self.files, cache, progress)

    def tokenizer_digest(self) -> str:
        """Of the tokenizer's files alone; of an empty list where there are none."""
        return self._digest({name: self.files[name] for name in TOKENIZER_FILES if name in self.files})

    def template(self) -> str | None:
        """The chat template's text; None where the checkpoint has none. Raises CheckpointError."""
        if "chat_template.jinja" in self.files:
            return _read(self.url, "chat_template.jinja").decode("utf-8")
        for name in ("chat_template.json", "tokenizer_config.json"):
            if name in self.files:
                try:
                    template = json.loads(_read(self.url, name)).get("chat_template")
                    if isinstance(template, list):  # named ones; `default` is what chat uses
                        named = {one["name"]: one["template"] for one in template}
                        template = named.get("default")
                except (ValueError, AttributeError, LookupError, TypeError) as error:
                    raise CheckpointError(
                        f"{self.url}/{name} cannot be understood ({error})",
                        "fetch it again; chat_template is a text, or a list of name and template",
                    ) from error
                if template:
                    return str(template)
        return None

    def template_digest(self) -> str | None:
        """SHA-256 of the chat template; None without one."""
        template = self.template()
        return None if template is None else hashlib.sha256(template.encode("utf-8")).hexdigest()

    def _digest(
        self,
        files: Mapping[str, int],
        cache: DigestCache | None = None,
        progress: Progress | None = None,
    ) -> str:
        whole, done, total = hashlib.sha256(), 0, sum(files.values())
        for name, size in files.items():
            whole.update(f"{name}\0{_file_digest(self.url, name, cache or DigestCache())}\n".encode())
            done += size
            if progress is not None:
                progress(done, total)
        return whole.hexdigest()


def _list(url: str) -> Iterator[tuple[str, int]]:
    try:
        filesystem, root = url_to_fs(url)
        for path, info in filesystem.find(root, detail=True).items():
            yield path[len(root.rstrip("/")) + 1 :], int(info.get("size") or 0)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"{url} cannot be listed: {error}",
            "check the address and the credentials; other protocols want fsspec's package for them",
        ) from error


def _read(url: str, name: str) -> bytes:
    try:
        with fsspec.open(f"{url.rstrip('/')}/{name}", "rb") as file:
            return bytes(file.read())
    except OSError as error:
        raise CheckpointError(f"{url}/{name} cannot be read: {error}") from error


def _file_digest(url: str, name: str, cache: DigestCache) -> str:
    try:
        filesystem, root = url_to_fs(url)
        path = f"{root.rstrip('/')}/{name}"
        info = filesystem.info(path)
        key = f"{url}/{name}:{info.get('size')}:{info.get('mtime') or info.get('LastModified')}"
        known = cache.get(key)
        if known is not None:
            return known
        found = hashlib.sha256()
        with filesystem.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError as error:
        raise CheckpointError(f"{url}/{name} cannot be read: {error}") from error
    cache.put(key, found.hexdigest())
    return found.hexdigest()

"""Versions of TensorRT-LLM and vLLM: how they compare, and where the lanes end and begin. Pure."""

from __future__ import annotations

import re

LAST_ENGINE_VERSION = "1.2.1"
"""The last stable TensorRT-LLM that compiles engines and serves them in Triton."""
PINNED = LAST_ENGINE_VERSION
"""What the tables of this package hold unless they say otherwise."""
FIRST_PYTORCH_VERSION = "1.0"
"""From here on Triton's `llmapi` model and `trtllm-serve` run the PyTorch backend."""
VLLM_VERSION = "0.24.0"
"""What a plan compares with where the spec is of another lane: the one that kernel tables know."""
_BEFORE_RELEASE = re.compile(r"(a|b|rc|dev)\d*")


def version_number(version: str) -> tuple[int, ...]:
    """Numbers of a version, to compare: `1.2.0rc2` counts as 1.2.0."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found.group().split(".")] if found else []
    return tuple([*numbers, 0, 0, 0][:3])


def newer(version: str, than: str) -> bool:
    """By their numbers: a release candidate of a later version is newer than an earlier release."""
    return version_number(version) > version_number(than)


def is_candidate(version: str) -> bool:
    """Whether it came before its release."""
    return _BEFORE_RELEASE.search(version) is not None

"""Versions: which of TensorRT-LLM's and vLLM's a lane can have."""

from __future__ import annotations

import re

from engine_builder.contract.options import version_number

FIRST_PYTORCH_VERSION = "1.0"
"""From here on Triton's `llmapi` model and `trtllm-serve` run the PyTorch backend."""
VLLM_VERSION = "0.24.0"
"""What a plan compares with where the spec is of another lane: the one that kernel tables know."""
_BEFORE_RELEASE = re.compile(r"(a|b|rc|dev)\d*")


def newer(version: str, than: str) -> bool:
    """By their numbers: a release candidate of a later version is newer than an earlier release."""
    return version_number(version) > version_number(than)


def is_candidate(version: str) -> bool:
    """Whether it came before its release."""
    return _BEFORE_RELEASE.search(version) is not None

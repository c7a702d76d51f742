"""Versions: which Triton image holds which TensorRT-LLM, and which versions have which lane."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

IMAGES: Mapping[str, str] = MappingProxyType(
    {
        "24.04": "0.9.0",
        "24.05": "0.9.0",
        "24.06": "0.10.0",
        "24.07": "0.11.0",
        "24.08": "0.12.0",
        "24.09": "0.13.0",
        "24.10": "0.14.0",
        "24.11": "0.15.0",
        "24.12": "0.16.0",
        "25.01": "0.17.0",
        "25.02": "0.17.0.post1",
        "25.03": "0.18.0",
        "25.04": "0.18.2",
        "25.05": "0.19.0",
        "25.06": "0.20.0",
        "25.07": "0.20.0",
        "25.08": "0.21.0",
        "25.09": "1.0.0",
        "25.10": "1.0.0",
        "25.11": "1.0.3.2510",
        "25.12": "1.1.0",
        "26.01": "1.1.0",
        "26.02": "1.1.0",
        "26.03": "1.2.0",
        "26.04": "1.2.1",
        "26.05": "1.2.1",
        "26.06": "1.2.1",
        "26.07": "1.2.1",
    }
)
"""TensorRT-LLM by the tag of `tritonserver:TAG-trtllm-python-py3`. Source: Triton's compatibility table; the
Dockerfiles of 25.11 and 26.03 say 1.2.0rc2 and 1.2.0rc8 instead."""
LAST_ENGINE_VERSION = "1.2.1"
"""The last stable line that compiles engines; the path was removed during 1.3.0rc."""
FIRST_PYTORCH_VERSION = "1.0"
"""From here on Triton's `llmapi` model and `trtllm-serve` run the PyTorch backend."""
VLLM_VERSION = "0.24.0"
"""What a plan compares with where the spec is of another lane: the one that kernel tables know."""
_BEFORE_RELEASE = re.compile(r"(a|b|rc|dev)\d*")


def release(version: str) -> tuple[int, int, int]:
    """The numbers of a version; what follows them (`rc3`, `.post1`) is left out."""
    numbers = [int(re.match(r"\d*", part)[0] or 0) for part in version.split(".")[:3]]  # type: ignore[index]
    major, minor, patch = (*numbers, 0, 0)[:3]
    return major, minor, patch


def newer(version: str, than: str) -> bool:
    """By their numbers: a release candidate of a later version is newer than an earlier release."""
    return release(version) > release(than)


def is_candidate(version: str) -> bool:
    """Whether it came before its release."""
    return _BEFORE_RELEASE.search(version) is not None


def images_with(version: str) -> tuple[str, ...]:
    """Tags of the images of a TensorRT-LLM version, oldest first."""
    return tuple(tag for tag, held in IMAGES.items() if held == version)

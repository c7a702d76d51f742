"""Where an engine can run: the container image of its version, and the architecture of its GPUs."""

from __future__ import annotations

from collections.abc import Mapping

_TRITON = "nvcr.io/nvidia/tritonserver"
_TRTLLM_TAGS: Mapping[str, str] = {
    "0.9.0": "24.05",
    "0.10.0": "24.06",
    "0.11.0": "24.07",
    "0.12.0": "24.08",
    "0.13.0": "24.09",
    "0.14.0": "24.10",
    "0.15.0": "24.11",
    "0.16.0": "24.12",
    "0.17.0": "25.01",
    "0.18.0": "25.03",
    "0.18.2": "25.04",
    "0.19.0": "25.05",
    "0.20.0": "25.07",
    "0.21.0": "25.08",
    "1.0.0": "25.10",
    "1.1.0": "26.02",
    "1.2.1": "26.07",
}
"""The newest image of each version whose table and Dockerfile agree (contract sheet §5)."""
_ARCHITECTURES: Mapping[str, str] = {
    "a100": "sm80",
    "a30": "sm80",
    "a10": "sm86",
    "a40": "sm86",
    "l4": "sm89",
    "l40": "sm89",
    "l40s": "sm89",
    "h100": "sm90",
    "h200": "sm90",
    "gh200": "sm90",
    "b200": "sm100",
    "gb200": "sm100",
    "b300": "sm103",
    "gb300": "sm103",
}
"""By the first word of a GPU class (contract sheet §4.4)."""


def image_of(lane: str, version: str) -> str | None:
    """The Triton image that serves TensorRT-LLM of this version; None: no released one is known."""
    tag = None if lane == "vllm" else _TRTLLM_TAGS.get(version)
    return None if tag is None else f"{_TRITON}:{tag}-trtllm-python-py3"


def architecture_of(gpu_class: str) -> str | None:
    """`sm90` of `h100-sxm`; None for what has none or is not known."""
    return _ARCHITECTURES.get(gpu_class.partition("-")[0])

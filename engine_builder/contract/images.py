"""Which TensorRT-LLM is in which Triton image (§5).

Source: docs/introduction/compatibility.md of triton-inference-server/server (main and r26.08) and the
Dockerfiles of tensorrtllm_backend's release branches; where the two disagree, both stand here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """One `tritonserver:TAG-trtllm-python-py3`."""

    tag: str
    version: str
    """Of TensorRT-LLM, as the compatibility table says."""
    tensorrt: str = ""
    cuda: str = ""
    driver: str = ""
    """Lowest that it runs under."""
    also: str = ""
    """What its Dockerfile says, where that is another version."""

    @property
    def reference(self) -> str:
        """What to pull."""
        return f"nvcr.io/nvidia/tritonserver:{self.tag}-trtllm-python-py3"


IMAGES: tuple[Image, ...] = (
    Image("24.04", "0.9.0"),
    Image("24.05", "0.9.0", "10.0.1.6", "12.3.2", "545.23"),
    Image("24.06", "0.10.0", "10.0.1", "12.4.0", "550.54"),
    Image("24.07", "0.11.0", "10.1.0", "12.4.1", "550.54"),
    Image("24.08", "0.12.0", "10.3.0", "12.5.1", "555.42"),
    Image("24.09", "0.13.0", "10.4.0", "12.5.1", "555.42"),
    Image("24.10", "0.14.0", "10.4.0", "12.5.1", "555.42"),
    Image("24.11", "0.15.0", "10.6.0", "12.6.3", "555.42"),
    Image("24.12", "0.16.0", "10.7.0", "12.6.3", "560.35"),
    Image("25.01", "0.17.0", "10.8.0.43", "12.8.0", "570.86"),
    Image("25.02", "0.17.0.post1", "10.8.0.43", "12.8.0", "570.86"),
    Image("25.03", "0.18.0", "10.9.0.34", "12.8.1", "570.124"),
    Image("25.04", "0.18.2", "10.9.0.34", "12.8.1", "570.124"),
    Image("25.05", "0.19.0", "10.9.0.34", "12.8.1", "570.124"),
    Image("25.06", "0.20.0", "10.10.0.31", "12.9.0", "575.51"),
    Image("25.07", "0.20.0", "10.10.0.31", "12.9.0", "575.51"),
    Image("25.08", "0.21.0", "10.11.0.33", "12.9.0", "575.51"),
    Image("25.09", "1.0.0", "10.11.0.33", "12.9.1", "575.57"),
    Image("25.10", "1.0.0", "10.11.0.33", "12.9.1", "575.57"),
    Image("25.11", "1.0.3.2510", "10.13.3.9", "13.0.2", "580.95", also="1.2.0rc2"),
    Image("25.12", "1.1.0", "10.13.3.9", "13.0.2", "580.95"),
    Image("26.01", "1.1.0", "10.13.3.9", "13.0.2", "580.95"),
    Image("26.02", "1.1.0", "10.13.3.9", "13.0.2", "580.95"),
    Image("26.03", "1.2.0", "10.14.1.48", "13.1.0", "590.44", also="1.2.0rc8"),
    Image("26.04", "1.2.1", "10.14.1.48", "13.1.0", "590.44"),
    Image("26.05", "1.2.1", "10.14.1.48", "13.1.0", "590.44"),
    Image("26.06", "1.2.1", "10.14.1.48", "13.1.0", "590.44"),
    Image("26.07", "1.2.1", "10.14.1.48", "13.1.0", "590.44"),
)
"""26.08 is in neither table."""


def images_with(version: str) -> tuple[Image, ...]:
    """The images of a TensorRT-LLM version, oldest first; those that are in doubt too."""
    return tuple(image for image in IMAGES if version in (image.version, image.also))


def image_with(version: str) -> Image | None:
    """The newest image that surely holds it: table and Dockerfile agree. None: no released one is known."""
    surely = (image for image in reversed(IMAGES) if image.version == version and not image.also)
    return next(surely, None)

"""Why a build cannot be had, changed or worked on.

RegistryError
├── UnknownBuildError       there is no such build, or it was forgotten
├── BuildOverError          the build has ended and cannot be cancelled
└── BuildClaimLostError     another builder has the build by now; this write was refused
"""

from __future__ import annotations

from model_registry.errors import RegistryError


class UnknownBuildError(RegistryError):
    """There is no such build, or it was forgotten."""

    def __init__(self, build_id: str) -> None:
        super().__init__(f"no build {build_id!r}; `enginehouse builds list` says which there are")


class BuildOverError(RegistryError):
    """The build has ended and cannot be cancelled."""

    def __init__(self, build_id: str, state: str) -> None:
        super().__init__(f"build {build_id!r} has ended ({state}) and cannot be cancelled")


class BuildClaimLostError(RegistryError):
    """Another builder has the build by now; this write was refused."""

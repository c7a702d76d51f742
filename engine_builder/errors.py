"""What can go wrong on the way from a checkpoint to a published engine.

BuilderError                 says what is wrong, and `remedy` what to do
├── CheckpointError          a checkpoint cannot be read, or is of a kind that is not known
├── SpecError                a spec cannot be built; carries every finding
├── PlanError                nothing that fits was found
├── StepError                a step failed; carries its name and the end of its log
│   └── StepTimeoutError     it took too long
├── NoRoomError              too little disk or memory is left
├── BuildStoppedError        somebody asked for it to end before it was done
├── ClaimLostError           another worker has this build by now; this one must not publish
├── PackageError             a model repository or its manifest is not as it must be
│   └── SignatureError       the manifest was not signed by a key that is trusted
└── StoreError               a store cannot be read or written
"""

from __future__ import annotations


class BuilderError(Exception):
    """Something about a build; the message says what, `remedy` what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class CheckpointError(BuilderError):
    """A checkpoint cannot be read, or is of a kind that is not known."""


class SpecError(BuilderError):
    """A spec cannot be built; the message has every reason."""


class PlanError(BuilderError):
    """Nothing that fits was found."""


class StepError(BuilderError):
    """A step of a build failed."""

    def __init__(self, step: str, message: str, remedy: str = "", log_end: str = "") -> None:
        super().__init__(f"step {step!r}: {message}", remedy)
        self.step = step
        self.log_end = log_end
        """The last lines of what it wrote."""


class StepTimeoutError(StepError):
    """A step took longer than it may."""


class NoRoomError(BuilderError):
    """Too little disk or memory is left."""


class BuildStoppedError(BuilderError):
    """Somebody asked for the build to end before it was done."""


class ClaimLostError(BuilderError):
    """Another worker has this build by now."""


class PackageError(BuilderError):
    """A model repository or its manifest is not as it must be."""


class SignatureError(PackageError):
    """A manifest was not signed by a key that is trusted."""


class StoreError(BuilderError):
    """A store cannot be read or written."""

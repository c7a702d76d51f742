"""Why a file or a batch job cannot be had, made or worked on.

BatchJobError
├── UnknownFileError      the tenant has no such file
├── UnknownJobError       the tenant has no such batch job
├── UnknownCursorError    `after` names nothing that could be listed
├── FileInUseError        a batch job still reads the file
├── TooManyFilesError     the tenant has as many files as it may
├── TooManyJobsError      the tenant has as many unfinished batch jobs as it may
├── JobOverError          the batch job has ended and cannot be cancelled
└── ClaimLostError        another worker holds the work now; this write was refused
"""

from __future__ import annotations


class BatchJobError(Exception):
    """The operation on a file or batch job failed; nothing was changed. `param` names the field at fault."""

    param: str | None = None


class UnknownFileError(BatchJobError):
    """The tenant has no such file."""

    def __init__(self, file_id: str, param: str | None = None) -> None:
        super().__init__(f"No such File object: {file_id}. GET /v1/files lists what there is.")
        self.param = param


class UnknownJobError(BatchJobError):
    """The tenant has no such batch job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No batch found with id '{job_id}'. GET /v1/batches lists what there is.")


class UnknownCursorError(BatchJobError):
    """`after` names nothing that could be listed."""

    param = "after"

    def __init__(self, cursor: str) -> None:
        super().__init__(f"`after` names {cursor!r}, which is not in this list. Begin without `after`.")


class FileInUseError(BatchJobError):
    """A batch job still reads the file."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"{file_id} is the input of a batch job that has not ended. Cancel that first.")


class TooManyFilesError(BatchJobError):
    """The tenant has as many files as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"There are {limit} files already, as many as are allowed here. Delete some.")


class TooManyJobsError(BatchJobError):
    """The tenant has as many unfinished batch jobs as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} batch jobs have not ended, as many as are allowed here. Wait for one, or cancel one."
        )


class JobOverError(BatchJobError):
    """The batch job has ended and cannot be cancelled."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Cannot cancel a batch with status '{status}': {job_id} has ended.")


class ClaimLostError(BatchJobError):
    """Another worker holds the work now; this write was refused."""

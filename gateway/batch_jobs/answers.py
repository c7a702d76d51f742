"""Answers: files and batch jobs as OpenAI's API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenancy.batch_jobs.entities import BatchJob, StoredFile

_TIMES = (
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def file_answer(file: StoredFile) -> dict[str, Any]:
    """A `File` object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def job_answer(job: BatchJob) -> dict[str, Any]:
    """A `Batch` object; as OpenAI's own answers do, it shows as null what there is not yet."""
    errors = [{"code": e.code, "message": e.message, "param": e.param, "line": e.line} for e in job.errors]
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.endpoint,
        "model": job.model or None,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": job.input_file,
        "completion_window": job.completion_window,
        "status": job.status,
        "output_file_id": job.output_file or None,
        "error_file_id": job.error_file or None,
        "created_at": job.times["created_at"],
        **{name: job.times.get(name) for name in _TIMES},
        "request_counts": {"total": job.total, "completed": job.completed, "failed": job.failed},
        "usage": _usage(job),
        "metadata": job.metadata,
    }


def _usage(job: BatchJob) -> dict[str, Any]:
    return {
        "input_tokens": job.input_tokens,
        "input_tokens_details": {"cached_tokens": job.cached_tokens},
        "output_tokens": job.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": job.input_tokens + job.output_tokens,
    }


def page_answer(items: Sequence[Mapping[str, Any]], more: bool) -> dict[str, Any]:
    """One page of a list."""
    ids = [item["id"] for item in items]
    return {
        "object": "list",
        "data": items,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": more,
    }

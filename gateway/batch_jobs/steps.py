"""Steps: what is done once for each job, before its rows run and after: validation and assembly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from gateway.batch_jobs.assembly import INDEX, Assembled, assemble
from gateway.batch_jobs.config import BatchJobsConfig
from gateway.batch_jobs.contents import Contents
from gateway.batch_jobs.validation import Rules, Validated, validate
from model_registry.errors import RegistryUnavailableError
from tenancy.batch_jobs.entities import BatchJob, Claim, RowError, StoredFile
from tenancy.batch_jobs.errors import ClaimLostError
from tenancy.batch_jobs.store import JobStore


class Steps:
    """Both steps; each may be done again by another worker, to the same end."""

    def __init__(self, config: BatchJobsConfig, store: JobStore, contents: Contents) -> None:
        self._config = config
        self._store = store
        self._contents = contents

    async def validate(
        self, job: BatchJob, claim: Claim, allow: Callable[[str], object], max_line_bytes: int
    ) -> None:
        """Read the input; its rows become work, or the job fails. Raises ClaimLostError."""
        rules = Rules(job.endpoint, self._config.max_rows, max_line_bytes, allow)
        async with self._renewed(claim):
            found = await asyncio.to_thread(self._read, job, rules)
            if found.errors:
                await self._store.refused(claim, found.errors, self._config.retention_s)
                return
            await asyncio.to_thread(self._contents.keep_part, job.id, INDEX, found.rows.pack())
            rows = len(found.rows.starts)
            await self._store.validated(claim, rows, self._config.slice_rows, found.model)

    def _read(self, job: BatchJob, rules: Rules) -> Validated:
        try:
            with self._contents.open_file(job.input_file) as file:
                return validate(file, rules)
        except FileNotFoundError:
            message = "The content of the input file is gone. Upload it again."
            return Validated.failed(RowError("invalid_input_file", message, "input_file_id"))

    async def assemble(self, claim: Claim) -> None:
        """Write the job's files, and end it. Raises ClaimLostError."""
        async with self._renewed(claim):
            job = await self._store.job(claim.tenant, claim.job_id)
            segments = await self._store.segments(job.id)
            assembled = await asyncio.to_thread(assemble, self._contents, job, segments)
            files = self._described(job, assembled, await self._store.now_s())
            await self._store.finished(claim, files, self._config.retention_s)
        await asyncio.to_thread(self._contents.remove_job, job.id)

    def _described(self, job: BatchJob, assembled: Assembled, now_s: int) -> list[StoredFile]:
        ends_s = now_s + (job.output_expires_s or int(self._config.retention_s))
        pairs = (
            (assembled.output_id, "output", assembled.output_bytes),
            (assembled.error_id, "error", assembled.error_bytes),
        )
        return [
            StoredFile(file_id, job.tenant, f"{job.id}_{what}.jsonl", "batch_output", size, now_s, ends_s)
            for file_id, what, size in pairs
        ]

    @asynccontextmanager
    async def _renewed(self, claim: Claim) -> AsyncIterator[None]:
        """Keep the claim while the scope lasts; the fence decides whether that worked."""
        task = asyncio.create_task(self._renew(claim))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _renew(self, claim: Claim) -> None:
        with suppress(ClaimLostError):
            while True:
                await asyncio.sleep(self._config.lease_s / 3)
                with suppress(RegistryUnavailableError):
                    await self._store.renew(claim, self._config.lease_s)

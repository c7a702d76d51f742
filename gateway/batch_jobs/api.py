"""The API of files and batch jobs. Each caller sees those of its own tenant only.

POST   /v1/files                      a file for a batch job, as a multipart form
GET    /v1/files[/{id}[/content]]
DELETE /v1/files/{id}
POST   /v1/batches                    a batch job for an uploaded file
GET    /v1/batches[/{id}]
POST   /v1/batches/{id}/cancel
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from aiohttp import web

from gateway.api.errors import SERVER_ERROR, ApiError, bad_request
from gateway.api.json_body import BodyLimits, decode_object
from gateway.batch_jobs.answers import file_answer, job_answer, page_answer
from gateway.batch_jobs.config import DAY_S, BatchJobsConfig
from gateway.batch_jobs.contents import Contents, StorageFullError
from gateway.batch_jobs.lines import ENDPOINTS
from gateway.batch_jobs.upload import checked_expiry, receive
from gateway.json_answer import json_answer
from gateway.query_limit import limit_of
from model_registry.snapshot import Snapshot
from tenancy.batch_jobs.entities import StoredFile
from tenancy.batch_jobs.errors import UnknownFileError
from tenancy.batch_jobs.store import Asked, JobStore, new_file_id
from tenancy.keys import Identity, authenticate

WINDOWS: Mapping[str, float] = {"24h": DAY_S}
_MAX_FILES, _MAX_JOBS = 10_000, 100
"""Longest pages; OpenAI's."""
_MAX_METADATA, _MAX_METADATA_KEY, _MAX_METADATA_VALUE = 16, 64, 512
"""OpenAI's."""
_MAX_FILENAME_CHARS = 255
_JOB_FIELDS = frozenset(
    {"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"}
)


class BatchApi:
    """The handlers; errors of packages below are left to the application's error table."""

    def __init__(
        self,
        config: BatchJobsConfig,
        store: JobStore,
        contents: Contents,
        snapshot: Callable[[], Snapshot],
        limits: BodyLimits,
        silence_s: float,
        on_new_job: Callable[[], object],
    ) -> None:
        self._config = config
        self._store = store
        self._contents = contents
        self._snapshot = snapshot
        self._limits = limits
        self._silence_s = silence_s
        self._on_new_job = on_new_job
        self._adding: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Paths and handlers."""
        return [
            web.post("/v1/files", self.upload),
            web.get("/v1/files", self.list_files),
            web.get("/v1/files/{id}", self.file),
            web.get("/v1/files/{id}/content", self.content),
            web.delete("/v1/files/{id}", self.delete_file),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.list_jobs),
            web.get("/v1/batches/{id}", self.job),
            web.post("/v1/batches/{id}/cancel", self.cancel),
        ]

    # -- files --------------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        """Store a file; it is known once it is whole on disk."""
        tenant = self._caller(request).tenant.name
        now_s = await self._store.now_s()  # a store that cannot know the file should not take its bytes
        try:
            await asyncio.to_thread(self._contents.check_room)
            file = await self._receive(request, tenant, now_s)
        except StorageFullError as error:
            raise ApiError(503, str(error), SERVER_ERROR, "storage_full", retry_after_s=60) from error
        return json_answer(file_answer(file))

    async def _receive(self, request: web.Request, tenant: str, now_s: int) -> StoredFile:
        file_id = new_file_id()
        with self._contents.draft() as draft:
            form = await receive(request, draft, self._contents, self._config, self._silence_s)
            kept_s = form.expires_s() or int(self._config.retention_s)
            await asyncio.to_thread(self._contents.keep_file, draft, file_id)
        name = (form.filename or "upload")[:_MAX_FILENAME_CHARS]
        file = StoredFile(file_id, tenant, name, "batch", draft.bytes, now_s, now_s + kept_s)
        adding = asyncio.create_task(self._add(file))  # ends one way or the other, whether the client stays
        self._adding.add(adding)
        adding.add_done_callback(self._adding.discard)
        await asyncio.shield(adding)
        return file

    async def _add(self, file: StoredFile) -> None:
        """Make a file known whose bytes are kept, or drop those."""
        try:
            await self._store.add_file(file, self._config.max_files_per_tenant)
        except Exception:
            await asyncio.to_thread(self._contents.remove_file, file.id)
            raise

    async def list_files(self, request: web.Request) -> web.Response:
        """One page of the tenant's files."""
        tenant = self._caller(request).tenant.name
        order = request.query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise bad_request("`order` must be 'asc' or 'desc'.", "order")
        direction: Literal["asc", "desc"] = "asc" if order == "asc" else "desc"
        files, more = await self._store.files(
            tenant,
            after=request.query.get("after", ""),
            limit=limit_of(request, _MAX_FILES, _MAX_FILES),
            order=direction,
            purpose=request.query.get("purpose", ""),
        )
        return json_answer(page_answer([file_answer(file) for file in files], more))

    async def file(self, request: web.Request) -> web.Response:
        """One file's description."""
        return json_answer(file_answer(await self._file(request)))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """One file's bytes."""
        file = await self._file(request)
        path = self._contents.path(file.id)
        if not await asyncio.to_thread(path.is_file):
            raise UnknownFileError(file.id)
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def delete_file(self, request: web.Request) -> web.Response:
        """Forget a file, then remove its bytes."""
        file = await self._file(request)
        await self._store.delete_file(file.tenant, file.id)
        await asyncio.to_thread(self._contents.remove_file, file.id)
        return json_answer({"id": file.id, "object": "file", "deleted": True})

    async def _file(self, request: web.Request) -> StoredFile:
        return await self._store.file(self._caller(request).tenant.name, request.match_info["id"])

    # -- batch jobs ---------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        """A new job; its input is validated afterwards."""
        caller = self._caller(request)
        asked = _asked(decode_object(await request.read(), self._limits), caller)
        try:
            file = await self._store.file(asked.tenant, asked.input_file)
        except UnknownFileError as error:
            raise UnknownFileError(asked.input_file, "input_file_id") from error
        if file.purpose != "batch":
            raise bad_request("`input_file_id` must name a file of purpose 'batch'.", "input_file_id")
        job = await self._store.create(asked, self._config.max_jobs_per_tenant)
        self._on_new_job()
        return json_answer(job_answer(job))

    async def list_jobs(self, request: web.Request) -> web.Response:
        """One page of the tenant's jobs, the newest first."""
        tenant = self._caller(request).tenant.name
        jobs, more = await self._store.jobs(
            tenant, after=request.query.get("after", ""), limit=limit_of(request, 20, _MAX_JOBS)
        )
        return json_answer(page_answer([job_answer(job) for job in jobs], more))

    async def job(self, request: web.Request) -> web.Response:
        """One job, and how far it is."""
        tenant = self._caller(request).tenant.name
        return json_answer(job_answer(await self._store.job(tenant, request.match_info["id"])))

    async def cancel(self, request: web.Request) -> web.Response:
        """Start no further row; what is done is kept."""
        tenant = self._caller(request).tenant.name
        return json_answer(job_answer(await self._store.cancel(tenant, request.match_info["id"])))

    def _caller(self, request: web.Request) -> Identity:
        return authenticate(self._snapshot(), request.headers.get("Authorization"))


def _asked(body: dict[str, Any], caller: Identity) -> Asked:
    """The body of `POST /v1/batches`. Raises ApiError 400."""
    for name in sorted(body.keys() - _JOB_FIELDS):
        raise bad_request(f"`{name[:60]}` is not known here. Leave it out.", name[:60], "unknown_parameter")
    endpoint = _one_of(body, "endpoint", ENDPOINTS)
    window = _one_of(body, "completion_window", WINDOWS)
    input_file = body.get("input_file_id")
    if not isinstance(input_file, str) or not input_file:
        raise bad_request("`input_file_id` must be the id of an uploaded file.", "input_file_id")
    return Asked(
        tenant=caller.tenant.name,
        key=caller.key_name,
        endpoint=endpoint,
        input_file=input_file,
        completion_window=window,
        window_s=WINDOWS[window],
        metadata=_metadata(body.get("metadata")),
        output_expires_s=_output_expiry(body.get("output_expires_after")),
    )


def _one_of(body: dict[str, Any], name: str, allowed: Mapping[str, object]) -> str:
    value = body.get(name)
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(repr(one) for one in allowed)
        raise bad_request(f"`{name}` must be one of {choices}.", name)
    return value


def _metadata(given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > _MAX_METADATA:
        raise bad_request(f"`metadata` must be an object of up to {_MAX_METADATA} strings.", "metadata")
    for key, value in given.items():
        if len(key) > _MAX_METADATA_KEY or not isinstance(value, str) or len(value) > _MAX_METADATA_VALUE:
            limits = f"names of up to {_MAX_METADATA_KEY}, strings of up to {_MAX_METADATA_VALUE} characters"
            raise bad_request(f"`metadata` may hold {limits}.", "metadata")
    return given


def _output_expiry(given: object) -> int:
    """Seconds that the output is kept; 0: as long as here is usual."""
    if given is None:
        return 0
    if not isinstance(given, dict):
        raise bad_request("`output_expires_after` must be an object.", "output_expires_after")
    return checked_expiry(given.get("anchor"), given.get("seconds"), "output_expires_after")


def refusing_routes() -> list[web.AbstractRouteDef]:
    """Where batch jobs are off: their paths say so."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        message = "Batch jobs are off on this gateway; its operator can set batch_jobs.store_path."
        raise ApiError(404, message, code="batch_jobs_off")

    return [web.route("*", path, refuse) for path in ("/v1/files{tail:.*}", "/v1/batches{tail:.*}")]

"""Upload: a multipart form streamed to a draft, chunk by chunk; memory holds one chunk, whatever the size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.api.errors import ApiError, bad_request
from gateway.batch_jobs.config import BatchJobsConfig
from gateway.batch_jobs.contents import Contents, Draft
from gateway.body import declared_bytes

_CHUNK_BYTES = 256 * 1024
_CHECK_ROOM_EVERY_BYTES = 16 * 1024 * 1024
_MAX_FIELD_BYTES = 1024
_MAX_PARTS = 16
_FIELDS = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 2_592_000
"""OpenAI's bounds of `expires_after.seconds`."""
_ANCHOR = "created_at"
_PLAIN = frozenset({"binary", "7bit", "8bit"})


@dataclass
class Form:
    """What a form held beside the file's bytes."""

    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ApiError 400 for what is missing or not served here."""
        if self.filename is None:
            raise bad_request("`file` is missing. Send it as a part of a multipart form.", "file")
        purpose = self.fields.get("purpose")
        if purpose != "batch":
            raise bad_request("`purpose` must be 'batch': no other is served here.", "purpose")

    def expires_s(self) -> int | None:
        """Seconds that the file is kept, where the client says. Raises ApiError 400."""
        anchor = self.fields.get("expires_after[anchor]")
        seconds = self.fields.get("expires_after[seconds]")
        if anchor is None and seconds is None:
            return None
        number = int(seconds) if seconds is not None and seconds.isascii() and seconds.isdigit() else None
        return checked_expiry(anchor, number, "expires_after")


def checked_expiry(anchor: object, seconds: object, param: str) -> int:
    """`seconds` of an expiry policy. Raises ApiError 400."""
    if anchor != _ANCHOR:
        raise bad_request(f"`{param}.anchor` must be 'created_at'.", f"{param}.anchor")
    if type(seconds) is not int or not MIN_EXPIRY_S <= seconds <= MAX_EXPIRY_S:
        message = f"`{param}.seconds` must be an integer from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}."
        raise bad_request(message, f"{param}.seconds")
    return seconds


async def receive(
    request: web.Request, draft: Draft, contents: Contents, config: BatchJobsConfig, silence_s: float
) -> Form:
    """Read the whole form; its file goes into `draft`. Raises ApiError, StorageFullError."""
    if request.content_type != "multipart/form-data":
        raise bad_request(
            "The body must be multipart/form-data with `file` and `purpose`.", code="invalid_body"
        )
    declared = declared_bytes(request)
    if declared is not None and declared > config.max_file_bytes + 64 * 1024:
        raise _too_large(config)
    form = Form()
    try:
        reader = await request.multipart()
        for _ in range(_MAX_PARTS):
            async with asyncio.timeout(silence_s):
                part = await reader.next()
            if part is None:
                break
            await _read_part(part, form, draft, contents, config, silence_s)
        else:
            raise bad_request(f"The form has more than {_MAX_PARTS} parts.", code="invalid_body")
    except TimeoutError:
        message = f"Nothing of the body came for {silence_s:g} s. Send it at once."
        raise ApiError(408, message, code="body_timeout") from None
    except (ValueError, web.RequestPayloadError, HttpProcessingError) as error:
        raise bad_request("The body is not a well-formed multipart form.", code="invalid_body") from error
    form.check()
    return form


async def _read_part(
    part: Any, form: Form, draft: Draft, contents: Contents, config: BatchJobsConfig, silence_s: float
) -> None:
    if not isinstance(part, BodyPartReader) or part.name is None:
        raise bad_request("Each part of the form must be a field with a name.", code="invalid_body")
    if part.headers.get("Content-Transfer-Encoding", "binary").lower() not in _PLAIN:
        raise bad_request("The parts of the form must be sent as they are, not encoded.", code="invalid_body")
    if part.name == "file":
        if form.filename is not None:
            raise bad_request("`file` is given twice. Upload one file at a time.", "file")
        form.filename = _clean(part.filename or "upload")
        await _read_file(part, draft, contents, config, silence_s)
    elif part.name in _FIELDS:
        form.fields[part.name] = await _read_field(part, silence_s)
    else:
        name = _clean(part.name[:60])
        raise bad_request(f"The field {name!r} is not known. Leave it out.", name)


async def _read_field(part: BodyPartReader, silence_s: float) -> str:
    data = b""
    while True:
        async with asyncio.timeout(silence_s):
            chunk = await part.read_chunk(_MAX_FIELD_BYTES)
        if not chunk:
            return data.decode("utf-8", "replace").strip()
        data += chunk
        if len(data) > _MAX_FIELD_BYTES:
            raise bad_request(f"`{part.name}` is too long.", part.name)


async def _read_file(
    part: BodyPartReader, draft: Draft, contents: Contents, config: BatchJobsConfig, silence_s: float
) -> None:
    """Chunks are decoded by nobody: a part has no transfer encoding of its own here."""
    unchecked = 0
    while True:
        async with asyncio.timeout(silence_s):
            chunk = await part.read_chunk(_CHUNK_BYTES)
        if not chunk:
            return
        if draft.bytes + len(chunk) > config.max_file_bytes:
            raise _too_large(config)
        await asyncio.to_thread(draft.write, bytes(chunk))
        unchecked += len(chunk)
        if unchecked >= _CHECK_ROOM_EVERY_BYTES:
            unchecked = 0
            await asyncio.to_thread(contents.check_room)


def _clean(text: str) -> str:
    """`text` as far as it is Unicode: header fields may hold any bytes."""
    return text.encode("utf-8", "replace").decode()


def _too_large(config: BatchJobsConfig) -> ApiError:
    message = f"The file is longer than the {config.max_file_bytes} bytes allowed here. Split it."
    return ApiError(413, message, code="file_too_large", param="file")

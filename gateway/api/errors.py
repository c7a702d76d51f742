"""What a client sees when something goes wrong: one table, in OpenAI's error shape.

`ApiError` is the gateway's own refusal (a body, a parameter, a path); every other exception has its row in
`ERROR_TABLE`. 429: the capacity exists and is taken; 503: there is none now. An exception without a row is
a fault of the gateway: 500 `internal_error`, and nothing of what it says leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import msgspec

from inference import errors as inference_errors
from model_registry import errors as registry_errors
from model_registry.build_jobs import errors as build_errors
from router import errors as router_errors
from tenancy import errors as tenancy_errors
from tenancy.batch_jobs import errors as job_errors

INVALID_REQUEST = "invalid_request_error"
RATE_LIMIT = "rate_limit_error"
SERVER_ERROR = "server_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"

MAX_MESSAGE_CHARS = 500
"""Longest message that is taken from an exception."""


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How one error looks to a client."""

    status: int
    type: str
    code: str
    message: str | None = None
    """None in the table: the exception's own message is written for clients."""
    param: str | None = None
    """Path of the request's field at fault, such as `messages[2].content`."""
    retry_after_s: float | None = None


class ApiError(Exception):
    """The gateway refuses a request; the message names the mistake and the remedy."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str = INVALID_REQUEST,  # noqa: A002 - OpenAI's own word
        code: str = "invalid_value",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.shape = ErrorShape(status, type, code, message, param, retry_after_s)

    @property
    def status(self) -> int:
        return self.shape.status

    @property
    def code(self) -> str:
        return self.shape.code

    @property
    def param(self) -> str | None:
        return self.shape.param


INTERNAL_ERROR = ErrorShape(
    500, SERVER_ERROR, "internal_error", "The gateway failed on this request. It has been logged with its id."
)

_TENANCY: Mapping[type[Exception], ErrorShape] = {
    tenancy_errors.AuthError: ErrorShape(401, AUTHENTICATION, "invalid_api_key"),
    tenancy_errors.MissingKeyError: ErrorShape(401, AUTHENTICATION, "invalid_api_key"),
    tenancy_errors.MalformedKeyError: ErrorShape(401, AUTHENTICATION, "invalid_api_key"),
    tenancy_errors.UnknownKeyError: ErrorShape(401, AUTHENTICATION, "invalid_api_key"),
    tenancy_errors.DisabledKeyError: ErrorShape(403, PERMISSION, "key_disabled"),
    tenancy_errors.ExpiredKeyError: ErrorShape(403, PERMISSION, "key_expired"),
    tenancy_errors.KeysNotLoadedError: ErrorShape(503, SERVER_ERROR, "keys_not_loaded", retry_after_s=1),
    tenancy_errors.RateLimitedError: ErrorShape(429, RATE_LIMIT, "rate_limit_exceeded", retry_after_s=1),
    tenancy_errors.BeyondLimitError: ErrorShape(400, INVALID_REQUEST, "request_beyond_limit"),
}

_BATCH_JOBS: Mapping[type[Exception], ErrorShape] = {
    job_errors.BatchJobError: ErrorShape(409, INVALID_REQUEST, "batch_failed"),
    job_errors.UnknownFileError: ErrorShape(404, INVALID_REQUEST, "file_not_found"),
    job_errors.UnknownJobError: ErrorShape(404, INVALID_REQUEST, "batch_not_found"),
    job_errors.UnknownCursorError: ErrorShape(400, INVALID_REQUEST, "invalid_value", param="after"),
    job_errors.FileInUseError: ErrorShape(409, INVALID_REQUEST, "file_in_use"),
    job_errors.TooManyFilesError: ErrorShape(429, RATE_LIMIT, "too_many_files", retry_after_s=60),
    job_errors.TooManyJobsError: ErrorShape(429, RATE_LIMIT, "too_many_batches", retry_after_s=60),
    job_errors.JobOverError: ErrorShape(409, INVALID_REQUEST, "batch_ended"),
    job_errors.ClaimLostError: ErrorShape(503, SERVER_ERROR, "claim_lost", retry_after_s=1),
}

_REGISTRY: Mapping[type[Exception], ErrorShape] = {
    registry_errors.RegistryError: ErrorShape(
        500, SERVER_ERROR, "registry_failed", "The registry failed on this request."
    ),
    registry_errors.RegistryUnavailableError: ErrorShape(
        503, SERVER_ERROR, "registry_unavailable", "The registry cannot be reached now.", retry_after_s=1
    ),
    registry_errors.RegistryReadOnlyError: ErrorShape(
        503, SERVER_ERROR, "registry_read_only", "The registry cannot be written now.", retry_after_s=1
    ),
    registry_errors.RegistryBusyError: ErrorShape(
        503, SERVER_ERROR, "registry_busy", "The registry changed meanwhile; try again.", retry_after_s=1
    ),
    registry_errors.LeadershipLostError: ErrorShape(
        503, SERVER_ERROR, "leadership_lost", "Another controller leads now; try again.", retry_after_s=1
    ),
    registry_errors.UnknownObjectError: ErrorShape(404, INVALID_REQUEST, "object_not_found"),
    registry_errors.UnknownVersionError: ErrorShape(404, INVALID_REQUEST, "version_not_found"),
    registry_errors.RevokedKeyError: ErrorShape(409, INVALID_REQUEST, "key_revoked"),
    registry_errors.UnknownKindError: ErrorShape(404, INVALID_REQUEST, "unknown_kind"),
    registry_errors.DanglingReferenceError: ErrorShape(409, INVALID_REQUEST, "dangling_reference"),
    registry_errors.NameTakenError: ErrorShape(409, INVALID_REQUEST, "name_taken"),
    registry_errors.InUseError: ErrorShape(409, INVALID_REQUEST, "in_use"),
    registry_errors.PoolConflictError: ErrorShape(409, INVALID_REQUEST, "pool_conflict"),
    registry_errors.ManifestErrors: ErrorShape(400, INVALID_REQUEST, "invalid_manifest"),
    registry_errors.IllegalTransitionError: ErrorShape(409, INVALID_REQUEST, "illegal_transition"),
    build_errors.UnknownBuildError: ErrorShape(404, INVALID_REQUEST, "build_not_found"),
    build_errors.BuildOverError: ErrorShape(409, INVALID_REQUEST, "build_over"),
    build_errors.BuildClaimLostError: ErrorShape(409, INVALID_REQUEST, "build_claim_lost"),
}

_INFERENCE: Mapping[type[Exception], ErrorShape] = {
    inference_errors.InferenceError: ErrorShape(
        502, SERVER_ERROR, "server_failed", "The model server failed on this request.", retry_after_s=1
    ),
    inference_errors.ServerUnreachableError: ErrorShape(
        502, SERVER_ERROR, "server_unreachable", "The model server could not be reached.", retry_after_s=1
    ),
    inference_errors.ServerBusyError: ErrorShape(
        429, RATE_LIMIT, "server_busy", "The model server has no room now; try again.", retry_after_s=1
    ),
    inference_errors.RequestRefusedError: ErrorShape(400, INVALID_REQUEST, "request_refused"),
    inference_errors.PromptTooLongError: ErrorShape(400, INVALID_REQUEST, "context_length_exceeded"),
    inference_errors.UnsupportedFeatureError: ErrorShape(400, INVALID_REQUEST, "unsupported_parameter"),
    inference_errors.UpstreamMisconfiguredError: ErrorShape(
        502, SERVER_ERROR, "server_misconfigured", "The model server is not set up for this request."
    ),
    inference_errors.AdapterError: ErrorShape(
        503, SERVER_ERROR, "model_misconfigured", "The LoRA adapter's files cannot be used.", "model"
    ),
    inference_errors.AdapterUnsendableError: ErrorShape(503, SERVER_ERROR, "model_misconfigured"),
    inference_errors.AdapterMissingError: ErrorShape(
        503, SERVER_ERROR, "adapter_evicted", "The engine has no room to keep the LoRA adapter.", "model", 1
    ),
    inference_errors.ServerFailedError: ErrorShape(
        502, SERVER_ERROR, "server_failed", "The model server failed on this request.", retry_after_s=1
    ),
    inference_errors.EngineBrokenError: ErrorShape(
        502, SERVER_ERROR, "server_failed", "The model server failed on this request.", retry_after_s=1
    ),
    inference_errors.ServerTimeoutError: ErrorShape(
        504, SERVER_ERROR, "server_timeout", "The model server did not answer in time.", retry_after_s=1
    ),
    inference_errors.StreamBrokenError: ErrorShape(
        502, SERVER_ERROR, "stream_broken", "The model server stopped before the answer was complete."
    ),
    inference_errors.ProtocolError: ErrorShape(
        502, SERVER_ERROR, "server_protocol", "The model server's answer could not be understood."
    ),
    inference_errors.SchemaError: ErrorShape(
        503, SERVER_ERROR, "model_misconfigured", "The model's server speaks no schema known here."
    ),
    inference_errors.TokenizerError: ErrorShape(
        503, SERVER_ERROR, "model_misconfigured", "The model's tokenizer or chat template cannot be used."
    ),
}

_ROUTER: Mapping[type[Exception], ErrorShape] = {
    router_errors.RouterError: ErrorShape(
        503, SERVER_ERROR, "not_routed", "No endpoint could take this request.", retry_after_s=5
    ),
    router_errors.UnknownModelError: ErrorShape(404, INVALID_REQUEST, "model_not_found", param="model"),
    router_errors.ModelNotAllowedError: ErrorShape(
        403,
        PERMISSION,
        "model_not_allowed",
        "This key may not use the model. GET /v1/models lists those it may.",
        "model",
    ),
    router_errors.ProfileNotAllowedError: ErrorShape(403, PERMISSION, "profile_not_allowed"),
    router_errors.NoEndpointsError: ErrorShape(
        503, SERVER_ERROR, "no_endpoints", "The model has no endpoint that is ready.", retry_after_s=5
    ),
    router_errors.PassedOnError: ErrorShape(503, SERVER_ERROR, "model_loading", retry_after_s=5),
    router_errors.ColdModelError: ErrorShape(503, SERVER_ERROR, "model_loading", retry_after_s=5),
    router_errors.ColdFullError: ErrorShape(503, SERVER_ERROR, "cold_queue_full", retry_after_s=5),
    router_errors.NoRoomError: ErrorShape(429, RATE_LIMIT, "no_room", retry_after_s=1),
    router_errors.QueueFullError: ErrorShape(429, RATE_LIMIT, "queue_full", retry_after_s=1),
    router_errors.QueueTimeoutError: ErrorShape(429, RATE_LIMIT, "queue_timeout", retry_after_s=1),
    router_errors.PredictedLateError: ErrorShape(429, RATE_LIMIT, "predicted_late", retry_after_s=1),
    router_errors.ShedError: ErrorShape(429, RATE_LIMIT, "shed", retry_after_s=1),
    router_errors.AttemptsExhaustedError: ErrorShape(
        503, SERVER_ERROR, "attempts_exhausted", retry_after_s=1
    ),
}

ERROR_TABLE: Mapping[type[Exception], ErrorShape] = MappingProxyType(
    {**_REGISTRY, **_TENANCY, **_BATCH_JOBS, **_INFERENCE, **_ROUTER}
)


def shape_of(error: BaseException) -> ErrorShape:
    """How `error` looks to a client: its own row, its nearest ancestor's, or `internal_error`.

    When every endpoint was only busy, the capacity exists and is taken: 429, not 503.
    """
    if isinstance(error, ApiError):
        return error.shape
    if isinstance(error, router_errors.AttemptsExhaustedError) and isinstance(
        error.last, (inference_errors.ServerBusyError, inference_errors.UpstreamMisconfiguredError)
    ):
        return shape_of(error.last)
    row = next((ERROR_TABLE[c] for c in type(error).__mro__ if c in ERROR_TABLE), None)
    if row is None:
        return INTERNAL_ERROR
    return replace(
        row,
        message=row.message or _own_message(error),
        param=row.param or getattr(error, "param", None),
        retry_after_s=getattr(error, "retry_after_s", None) or row.retry_after_s,
    )


def encode_error(error: ErrorShape | BaseException) -> bytes:
    """The JSON body of an error answer."""
    return msgspec.json.encode(_body(error))


def encode_error_event(error: ErrorShape | BaseException) -> bytes:
    """The server-sent event that ends a broken stream; no `[DONE]` may follow it."""
    return b"data: " + msgspec.json.encode(_body(error)) + b"\n\n"


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """400: the request is wrong and will be wrong again."""
    return ApiError(400, message, code=code, param=param)


def unsupported(place: str, why: str) -> ApiError:
    """400: a part of the body that is not served here."""
    return bad_request(f"`{place}`: {why}. Remove it.", place, "unsupported_parameter")


def request_too_large(limit_bytes: int) -> ApiError:
    """413: the body is longer than `limits.max_body_bytes`."""
    message = f"The body is longer than the {limit_bytes} bytes allowed here. Send a shorter request."
    return ApiError(413, message, code="request_too_large")


def not_found(method: str, path: str) -> ApiError:
    """404: no such path."""
    return ApiError(404, f"Unknown request URL: {method} {path}. See /v1/models.", code="unknown_url")


def method_not_allowed(method: str, path: str, allowed: str) -> ApiError:
    """405: the path exists, for other methods."""
    message = f"Not allowed to {method} on {path}. Use {allowed}."
    return ApiError(405, message, code="method_not_supported")


def draining(retry_after_s: float = 1.0) -> ApiError:
    """503: this process is going away; another one takes new requests."""
    message = "This gateway is shutting down and takes no new requests. Try again."
    return ApiError(503, message, SERVER_ERROR, "draining", retry_after_s=retry_after_s)


def _body(error: ErrorShape | BaseException) -> dict[str, Any]:
    shape = error if isinstance(error, ErrorShape) else shape_of(error)
    return {
        "error": {
            "message": shape.message or INTERNAL_ERROR.message,
            "type": shape.type,
            "param": shape.param,
            "code": shape.code,
        }
    }


def _own_message(error: BaseException) -> str:
    """The first line: what follows it may be a model server's traceback."""
    lines = str(error).strip().splitlines()
    first = lines[0][:MAX_MESSAGE_CHARS] if lines else "The request was refused."
    return first.encode("utf-8", "replace").decode()

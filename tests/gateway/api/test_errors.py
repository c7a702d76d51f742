"""Errors: every class has its row, and nothing inner leaves the process."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

import inference.errors
import model_registry.build_jobs.errors
import model_registry.errors
import router.errors
import tenancy.batch_jobs.errors
import tenancy.errors
from gateway.api import errors
from gateway.api.errors import ERROR_TABLE, ApiError, ErrorShape, encode_error, encode_error_event, shape_of
from inference.errors import PromptTooLongError, ServerBusyError, ServerFailedError, UnsupportedFeatureError
from router.errors import AttemptsExhaustedError, NoEndpointsError, UnknownModelError
from tenancy.errors import DisabledKeyError, MissingKeyError, UnknownKeyError
from tests.openai_schema import validate


def error_classes(module: ModuleType) -> list[type[Exception]]:
    found = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Exception)]
    return [item for item in found if item.__module__ == module.__name__]


MODULES = (
    inference.errors,
    model_registry.errors,
    model_registry.build_jobs.errors,
    router.errors,
    tenancy.errors,
    tenancy.batch_jobs.errors,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_error_class_has_its_row(module: ModuleType) -> None:
    classes = error_classes(module)
    assert classes
    assert not [item.__name__ for item in classes if item not in ERROR_TABLE]


@pytest.mark.parametrize("shape", ERROR_TABLE.values(), ids=[item.__name__ for item in ERROR_TABLE])
def test_every_row_is_an_error_of_openai(shape: ErrorShape) -> None:
    assert shape.status in (400, 401, 403, 404, 409, 429, 500, 502, 503, 504)
    validate("ErrorResponse", json.loads(encode_error(shape)))
    if shape.status in (429, 503) and shape.code != "model_misconfigured":
        assert shape.retry_after_s is not None


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MissingKeyError("Send a key."), 401, "invalid_api_key"),
        (UnknownKeyError("No such key."), 401, "invalid_api_key"),
        (DisabledKeyError("Switched off."), 403, "key_disabled"),
        (UnknownModelError("x"), 404, "model_not_found"),
        (NoEndpointsError("m"), 503, "no_endpoints"),
        (PromptTooLongError("too long"), 400, "context_length_exceeded"),
        (AttemptsExhaustedError("a", ServerFailedError("b")), 503, "attempts_exhausted"),
        (AttemptsExhaustedError("a", ServerBusyError("b")), 429, "server_busy"),
        (errors.request_too_large(5), 413, "request_too_large"),
        (errors.draining(), 503, "draining"),
        (errors.not_found("GET", "/x"), 404, "unknown_url"),
        (errors.method_not_allowed("GET", "/x", "POST"), 405, "method_not_supported"),
        (errors.bad_request("Wrong.", "n"), 400, "invalid_value"),
    ],
)
def test_an_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    shape = shape_of(error)
    assert (shape.status, shape.code) == (status, code)
    validate("ErrorResponse", json.loads(encode_error(error)))


def test_what_is_written_for_clients_reaches_them() -> None:
    body = json.loads(encode_error(UnsupportedFeatureError("no seed here", param="seed")))["error"]
    assert body == {
        "message": "no seed here",
        "type": "invalid_request_error",
        "param": "seed",
        "code": "unsupported_parameter",
    }


def test_of_a_long_message_only_the_first_line_is_told() -> None:
    shape = shape_of(PromptTooLongError("too long\nTraceback (most recent call last):\n  File x"))
    assert shape.message == "too long"
    assert len(shape_of(PromptTooLongError("x" * 5000)).message or "") == errors.MAX_MESSAGE_CHARS
    assert shape_of(PromptTooLongError("")).message


@pytest.mark.parametrize("error", [ValueError("/etc/secret"), KeyError("key"), RuntimeError()])
def test_an_unknown_exception_tells_nothing(error: Exception) -> None:
    shape = shape_of(error)
    assert (shape.status, shape.code, shape.type) == (500, "internal_error", "server_error")
    assert str(error) not in encode_error(error).decode() or not str(error)


@pytest.mark.parametrize(
    "error", [ServerFailedError("triton at 10.0.0.1 said no"), NoEndpointsError("d@10.0.0.1:1")]
)
def test_an_operators_error_keeps_its_addresses(error: Exception) -> None:
    assert b"10.0.0.1" not in encode_error(error)


def test_a_subclass_takes_the_row_of_its_nearest_ancestor() -> None:
    class NewerError(UnknownModelError):
        """Made later, without a row."""

    assert shape_of(NewerError("x")).code == "model_not_found"


def test_an_api_error_keeps_everything_it_was_given() -> None:
    error = ApiError(429, "Wait.", "rate_limit_error", "queue_timeout", "model", 2.5)
    assert shape_of(error) == ErrorShape(429, "rate_limit_error", "queue_timeout", "Wait.", "model", 2.5)
    assert (error.status, error.code, error.param, str(error)) == (429, "queue_timeout", "model", "Wait.")


def test_an_error_event_is_one_event() -> None:
    event = encode_error_event(ServerFailedError("inner"))
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    validate("ErrorResponse", json.loads(event.removeprefix(b"data: ")))


def test_text_that_is_not_unicode_can_be_answered() -> None:
    assert json.loads(encode_error(PromptTooLongError("half \ud800")))["error"]["message"] == "half ?"

"""What a server's error text stands for, and what of it may be shown."""

from __future__ import annotations

import pytest

from gateway.api.errors import shape_of
from inference.classify import classify_error, client_text
from inference.errors import (
    EngineBrokenError,
    InferenceError,
    PromptTooLongError,
    RequestRefusedError,
    ServerBusyError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
    UpstreamMisconfiguredError,
)

PREFIX = "Executor failed process requestId 3 due to the following error: "


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    "text",
    [
        "Encountered an error in forwardAsync function: out of memory (/src/x.cpp:123)\n1  0x7f /opt/x.so",
        "Encountered an error in forwardAsync function: the batch must be at least 1",
        "[TensorRT-LLM][ERROR] Assertion failed: No free block found. (/home/x/kvCacheManager.cpp:551)",
        "CUDA error: illegal memory access",
        "CUDA error: an illegal memory access was encountered",
        "cudaErrorLaunchFailure",
        "NCCL error: unhandled system error",
        "Assertion failed: mNumTokens > 0",
        "kvCacheManager.cpp:551: no block",
        PREFIX + "[TensorRT-LLM][ERROR] Assertion failed: x (/a/b.cpp:1)",
    ],
)
def test_a_broken_engine_is_never_the_callers_mistake(status: int, text: str) -> None:
    """Triton sends a model's first error as 400 even where the model said INTERNAL."""
    error = classify_error(status, text)
    assert isinstance(error, ServerFailedError)
    assert error.retry_safe
    assert error.endpoint_fault


def test_a_broken_device_is_told_from_a_request_that_failed() -> None:
    """Of the latter, a guide may be the cause."""
    assert isinstance(classify_error(500, "CUDA error: illegal memory access"), EngineBrokenError)
    failed = classify_error(500, "Encountered an error in forwardAsync function: expected '}'")
    assert type(failed) is ServerFailedError


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        (
            PREFIX + "Prompt length (5000) exceeds maximum input length (4096). Set log level to info "
            "(/workspace/tensorrt_llm/cpp/executorImpl.cpp:500)\n1 0x7f2c",
            PromptTooLongError,
            "Prompt length (5000) exceeds maximum input length (4096). Set log level to info",
        ),
        (
            "[TensorRT-LLM][ERROR] Assertion failed: Requested beam width 4 is larger than 1 (cpp/a/b.cpp:7)",
            RequestRefusedError,
            "Requested beam width 4 is larger than 1",
        ),
        (
            "input 'x' has unexpected shape [1] at /src/infer.cc:12",
            RequestRefusedError,
            "input 'x' has unexpected shape [1]",
        ),
        (
            "missing required input 'x'\n0# 0x55 in tritonserver",
            RequestRefusedError,
            "missing required input 'x'",
        ),
        (
            "Error generating stream: 'NoneType' object has no attribute 'lora_name'",
            RequestRefusedError,
            "the server's vLLM refused the sampling parameters; its log says which",
        ),
    ],
)
def test_the_callers_mistake_is_shown_without_places_in_the_source(
    text: str, kind: type[InferenceError], shown: str
) -> None:
    error = classify_error(400, text)
    assert type(error) is kind
    assert str(error) == shown


REFUSED = (400, "request_refused")
FAILED = (502, "server_failed")
BUSY = (429, "server_busy")
UNREACHABLE = (502, "server_unreachable")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # TensorRT-LLM's executor and its models (contract sheet 1.7), always as INTERNAL
        (PREFIX + "Prompt length (9) exceeds maximum input length (8).", (400, "context_length_exceeded")),
        (
            PREFIX + "The sum of prompt length (9.0) and max_tokens (9) should not exceed max_seq_len (8)",
            (400, "context_length_exceeded"),
        ),
        (PREFIX + "Maximum queue size of 4 has been reached, please try again later", BUSY),
        (
            PREFIX + "LoRA task 7 not found in cache. Please send LoRA weights with request",
            (503, "adapter_evicted"),
        ),
        (PREFIX + "Cache is full. There are no done tasks to evict", BUSY),
        (PREFIX + "embedding bias tensor must have shape [1, 32000]", REFUSED),
        (PREFIX + "Failed to compile json schema: unknown type", REFUSED),
        (PREFIX + "xgrammar: the regex is invalid", REFUSED),
        (PREFIX + "Requested beam width 4 is larger than the engine's max_beam_width 1", REFUSED),
        (PREFIX + "boom", FAILED),
        ("Error encountered while populating response: boom", FAILED),
        (
            "Streaming is only supported if model is deployed using decoupled mode.",
            (502, "server_misconfigured"),
        ),
        (
            "Batch size > 1 requires the model to be deployed using decoupled mode.",
            (502, "server_misconfigured"),
        ),
        ("Trying to stop a request but request ID is not provided", FAILED),
        ("Error generating request: boom", FAILED),
        ("Request cancelled by client", (502, "stream_broken")),
        # Triton's own
        ("Exceeds maximum queue size", BUSY),
        ("Request timeout expired", (504, "server_timeout")),
        ("Request for unknown model: 'm' is not found", UNREACHABLE),
        ("Request for unknown model: 'm' has no available versions", UNREACHABLE),
        ("[request id: r] Server is stopping, scheduler for model 'm' has stopped", UNREACHABLE),
        ("Model 'm' is unloading", UNREACHABLE),
        ("Stub process 'm_0_0' is not healthy.", UNREACHABLE),
        ("Stub process is unhealthy and it will be restarted.", UNREACHABLE),
        ("[request id: r] unexpected shape for input 'x' for model 'm'. Expected [1], got [2]", REFUSED),
        ("[request id: r] inference request batch-size must be <= 8 for 'm'", REFUSED),
        ("[request id: r] inference input 'x' data-type is 'FP32', but model 'm' expects 'INT32'", REFUSED),
        ("[request id: r] expected 3 inputs but got 2 inputs for model 'm'.", REFUSED),
        ("[request id: r] unexpected inference input 'x' for model 'm'", REFUSED),
        ("unexpected total byte size 8 for input 'x', expecting 4", REFUSED),
        ("Failed to process the request(s) for model 'm_0_0', message: KeyError: 'x'", FAILED),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("around", ["{}", "in ensemble 'e', {}"])
def test_every_text_has_its_answer_whatever_the_status(
    text: str, expected: tuple[int, str], status: int, around: str
) -> None:
    error = classify_error(status, around.format(text))
    shape = shape_of(error)
    assert (shape.status, shape.code) == expected
    assert isinstance(error, UpstreamMisconfiguredError) or error.retry_safe == (shape.status != 400)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("bad (/a/b.cpp:12)", "bad"),
        (PREFIX + "bad", "bad"),
        (PREFIX, PREFIX.strip()),
        ("in ensemble 'e', " + PREFIX + "[TensorRT-LLM][ERROR] Assertion failed: bad", "bad"),
        ("Failed to process the request(s) for model 'm_0_0', message: ValueError: bad", "bad"),
        ("[request id: r1] bad", "bad"),
        ("Error generating request: bad", "bad"),
        ("bad (at b.cu:12:3), really", "bad, really"),
        ('bad File "/opt/a b/model.py", line 3, in execute', "bad"),
        ("The reason:\n  bad word\n0x7f", "The reason: bad word"),
        ("see /v1/models; 3.5 is above 1/2, e.g. a.h", "see /v1/models; 3.5 is above 1/2, e.g. a.h"),
        ("\n\n", ""),
        ("a" * 1_000_000, "a" * 500),
    ],
)
def test_what_a_client_may_read(message: str, shown: str) -> None:
    assert client_text(message) == shown


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "Executor failed process requestId 3 due to the following error: boom", ServerFailedError),
        (500, "... Prompt length (9) exceeds maximum input length (8). Set ...", PromptTooLongError),
        (200, "Prompt length (9) exceeds maximum input length (8)", PromptTooLongError),
        (503, "Exceeds maximum queue size", ServerBusyError),
        (500, "in ensemble 'e', Exceeds maximum queue size", ServerBusyError),
        (503, "Request timeout expired", ServerTimeoutError),
        (400, "Request for unknown model: 'x' is not found", ServerUnreachableError),
        (500, "Stub process 'x_0_0' is not healthy.", ServerUnreachableError),
        (400, "input 'x' has unexpected shape", RequestRefusedError),
        (400, "anything", RequestRefusedError),
        (429, "anything", ServerBusyError),
        (504, "anything", ServerTimeoutError),
        (500, "", ServerFailedError),
    ],
)
def test_errors_are_told_apart_by_text_and_status(status: int, text: str, kind: type[InferenceError]) -> None:
    assert type(classify_error(status, text)) is kind


def test_of_a_traceback_only_its_end_is_kept() -> None:
    trace = 'Traceback (most recent call last):\n  File "/x/model.py", line 1\nValueError: bad words\n'
    assert str(classify_error(500, trace)) == "bad words"

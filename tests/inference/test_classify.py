"""What a server's error text stands for, and what of it may be shown."""

from __future__ import annotations

import pytest

from inference.classify import classify_error, client_text
from inference.errors import InferenceError, PromptTooLongError, RequestRefusedError, ServerFailedError

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
    assert type(error) is ServerFailedError
    assert error.retry_safe
    assert error.endpoint_fault


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        (
            PREFIX + "Prompt length (5000) exceeds maximum input length (4096). Set log level to info "
            "(/workspace/tensorrt_llm/cpp/executorImpl.cpp:500)\n1 0x7f2c",
            PromptTooLongError,
            PREFIX + "Prompt length (5000) exceeds maximum input length (4096). Set log level to info",
        ),
        (
            "[TensorRT-LLM][ERROR] Assertion failed: Requested beam width 4 is larger than 1 (cpp/a/b.cpp:7)",
            RequestRefusedError,
            "[TensorRT-LLM][ERROR] Assertion failed: Requested beam width 4 is larger than 1",
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
    ],
)
def test_the_callers_mistake_is_shown_without_places_in_the_source(
    text: str, kind: type[InferenceError], shown: str
) -> None:
    error = classify_error(400, text)
    assert type(error) is kind
    assert str(error) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("bad (/a/b.cpp:12)", "bad"),
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

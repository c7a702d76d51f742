"""Which of our errors a server's status and text stand for.

Triton's C++ `tensorrtllm` backend answers INTERNAL for everything, caller mistakes included, and
`generate_stream` (seen with 2.51) sends a model's error as 400: the text decides before the status does.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from inference.errors import (
    InferenceError,
    PromptTooLongError,
    RequestRefusedError,
    ServerBusyError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
)

_SUFFIX = r"\.(?:cpp|cc|cxx|cu|cuh|hpp|h|py|so)\b"
_TEXTS: tuple[tuple[re.Pattern[str], Callable[[str], InferenceError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), error)
    for pattern, error in (
        # The engine itself broke, whatever else the text says; the caller cannot be at fault.
        (
            r"forwardAsync|(CUDA|NCCL) (\w+ )?error|cudaError|out of memory|illegal memory",
            ServerFailedError,
        ),
        (
            r"prompt length .*exceeds|exceeds? (the )?max(imum)?[ _](input|sequence|seq|context)",
            PromptTooLongError,
        ),
        (
            r"longer than the maximum model length",
            PromptTooLongError,
        ),
        (r"maximum queue size|queue (is )?full|too many requests", ServerBusyError),
        (r"request timeout expired|deadline exceeded", ServerTimeoutError),
        (
            r"stub process .* is not healthy|stub process.*(exited|died)|failed to (initialize|launch).*stub",
            ServerUnreachableError,
        ),
        (
            r"request for unknown model|is not ready|no version is available|is unloading",
            ServerUnreachableError,
        ),
        (r"request cancelled|was cancelled|shutting down", StreamBrokenError),
        (r"unexpected shape|unexpected datatype|unexpected (inference )?input", RequestRefusedError),
        (r"missing required input|unable to parse|out of (the )?vocab|invalid argument", RequestRefusedError),
        (
            r"requested beam width|(must|should) be (at least|at most|between|positive|in )",
            RequestRefusedError,
        ),
        (r"only supported if model is deployed using decoupled", ServerFailedError),
        # Whatever else a model itself says; generate_stream sends it with 400 when it comes first.
        (
            r"executor failed process|error encountered while|error generating (request|stream)",
            ServerFailedError,
        ),
        (r"in ensemble '|Traceback \(most recent", ServerFailedError),
        (rf"\[TensorRT-LLM\]\[ERROR\]|assertion failed|segmentation fault|{_SUFFIX}:\d+", ServerFailedError),
    )
)
_STATUSES: dict[int, Callable[[str], InferenceError]] = {
    400: RequestRefusedError,
    404: ServerUnreachableError,
    408: ServerTimeoutError,
    413: RequestRefusedError,
    422: RequestRefusedError,
    429: ServerBusyError,
    502: ServerUnreachableError,
    503: ServerBusyError,
    504: ServerTimeoutError,
}
_PATH = rf"[\w./+-]*[\w+-]{_SUFFIX}"
_PLACE = re.compile(
    rf"""\s*(?:\(\s*(?:at\s+)?{_PATH}(?::\d+)*\s*\)|File\s+"[^"]*",\s*line\s+\d+(?:,\s*in\s+\w+)?"""
    rf"""|(?:\bat\s+)?(?:(?<!\w)/{_PATH}(?::\d+)*|{_PATH}(?::\d+)+))"""
)
"""Where in its source a server failed: `(/a/b.cpp:12)`, `b.cpp:12`, `File "b.py", line 12`."""
_LONGEST_TEXT = 500


def classify_error(status: int, message: str) -> InferenceError:
    """The error that `message`, sent with HTTP `status` (200: within a stream), stands for.

    The text kept is `client_text`, so that no code of the server reaches a client.
    """
    text = client_text(message) or "the server gave no reason"
    for pattern, error in _TEXTS:
        if pattern.search(message):
            return error(text)
    return _STATUSES.get(status, ServerFailedError)(text)


def client_text(message: str) -> str:
    """What of a server's message may be shown: one line, without places in its source.

    BLS sends whole Python tracebacks, whose last line says what happened; below the first line of other
    messages come stacks of C++.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    if "Traceback (most recent call last)" in message:
        text = lines[-1]
    else:
        text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return _PLACE.sub("", text[: 2 * _LONGEST_TEXT]).strip()[:_LONGEST_TEXT]

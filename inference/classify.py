"""Which of our errors a server's status and text stand for.

Triton's C++ `tensorrtllm` backend answers INTERNAL for everything, caller mistakes included, and
`generate_stream` (seen with 2.51) sends a model's error as 400: the text decides before the status does.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from inference.errors import (
    AdapterMissingError,
    EngineBrokenError,
    InferenceError,
    PromptTooLongError,
    RequestRefusedError,
    ServerBusyError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
    UpstreamMisconfiguredError,
)

_SUFFIX = r"\.(?:cpp|cc|cxx|cu|cuh|hpp|h|py|so)\b"
_GUIDES = r"(guided[ _]decoding|xgrammar|grammar|json[ _]schema|regex|regular expression)"


def _parameters_refused(text: str) -> InferenceError:
    """The vLLM backend names what it misses then, not what vLLM refuses."""
    del text
    return RequestRefusedError("the server's vLLM refused the sampling parameters; its log says which")


_TEXTS: tuple[tuple[re.Pattern[str], Callable[[str], InferenceError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), error)
    for pattern, error in (
        (r"LoRA task \d+ not found in cache|send LoRA weights with request", AdapterMissingError),
        (r"PEFT cache is full|no done tasks to evict", ServerBusyError),
        # The engine itself broke, whatever else the text says; the caller cannot be at fault.
        (r"(CUDA|NCCL) (\w+ )?error|cudaError|out of memory|illegal memory", EngineBrokenError),
        (r"forwardAsync", ServerFailedError),  # a guide that cannot be compiled fails there, too
        (r"prompt length .*exceeds", PromptTooLongError),
        (r"exceeds? (the )?max(imum)?[ _](input|sequence|seq|context)", PromptTooLongError),
        (r"(should|must) not exceed (the )?max_(seq_len|num_tokens|input_len)", PromptTooLongError),
        (r"maximum context length is|longer than the maximum model length", PromptTooLongError),
        (r"lora .*cache is full", ServerBusyError),
        (r"lora .*(not found|not in( the)? cache|not cached|is not loaded)", AdapterMissingError),
        (r"maximum queue size|queue (is )?full|too many requests", ServerBusyError),
        (r"request timeout expired|deadline exceeded", ServerTimeoutError),
        (r"stub process .*is (not healthy|unhealthy)|stub process.*(exited|died)", ServerUnreachableError),
        (r"failed to (initialize|launch).*stub", ServerUnreachableError),
        (r"request for unknown model|no version is available|no available versions", ServerUnreachableError),
        (r"is not ready|is unloading|server is (stopping|exiting)", ServerUnreachableError),
        (r"request cancelled|was cancelled|shutting down", StreamBrokenError),
        # What Triton's core finds wrong with the tensors of a request.
        (r"unexpected shape|unexpected datatype|unexpected (inference )?input", RequestRefusedError),
        (r"unexpected total byte size|input byte size mismatch", RequestRefusedError),
        (r"data-type is .* but model|batch-size must be <=|expected \d+ inputs? but", RequestRefusedError),
        (
            r"missing required input|unable to parse|out[- ]of[- ](the )?vocab|invalid argument",
            RequestRefusedError,
        ),
        # What the engine finds wrong with the values.
        (r"'NoneType' object has no attribute 'lora_name'", _parameters_refused),
        (r"allowed_token_ids is not None and empty", RequestRefusedError),
        (r"embedding[ _]bias.*(shape|size|dimension)", RequestRefusedError),
        (rf"{_GUIDES}\b.*\b(invalid|error|fail(ed|ure)?|cannot|not|unsupported)\b", RequestRefusedError),
        (
            rf"(invalid|failed to (parse|compile|transform|convert)|unsupported) .*{_GUIDES}",
            RequestRefusedError,
        ),
        (
            r"requested beam width|(must|should) be (at least|at most|between|positive|in )",
            RequestRefusedError,
        ),
        # How the model was set up: the gateway asks for nothing else.
        (r"only supported (if model is deployed using|in) decoupled", UpstreamMisconfiguredError),
        (r"requires the model to be deployed using decoupled", UpstreamMisconfiguredError),
        # Whatever else a model itself says; generate_stream sends it with 400 when it comes first.
        (
            r"executor failed process|error encountered while|error generating (request|stream)",
            ServerFailedError,
        ),
        (r"failed to process the request|trying to stop a request", ServerFailedError),
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
_WRAPPERS = re.compile(
    r"""^(?:\s*(?:Executor\ failed\ process\ requestId\ \d+\ due\ to\ the\ following\ error:"""
    r"""|Error\ encountered\ while\ populating\ response:|Error\ generating\ request:"""
    r"""|Failed\ to\ process\ the\ request\(s\)\ for\ model\ (?:instance\ )?'[^']*',\ message:"""
    r"""|in\ ensemble\ '[^']*',|\[request\ id:\ [^\]]*\]|\[TensorRT-LLM\]\[ERROR\]|Assertion\ failed:"""
    r"""|(?:\w+\.)*\w*(?:Error|Exception):))+\s*""",
    re.VERBOSE | re.IGNORECASE,
)
"""What servers put around the reason; a text of nothing else stays as it is."""
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
    text = _PLACE.sub("", text[: 2 * _LONGEST_TEXT]).strip()
    return (_WRAPPERS.sub("", text) or text)[:_LONGEST_TEXT]

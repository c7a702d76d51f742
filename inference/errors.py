"""What can go wrong with a model server.

InferenceError
├── ServerUnreachableError    no connection, or lost before the answer began     retry-safe
├── ServerBusyError           the server has no room now (queue full, 429, 503)  retry-safe
├── RequestRefusedError       the server says the request itself is wrong        never retried
│   └── PromptTooLongError    longer than the engine's input limit               never retried
├── AdapterMissingError       the engine has no such LoRA adapter in its cache    retry-safe
├── UpstreamMisconfiguredError  a wrong key, model or path of the operator's     retry-safe
├── ServerFailedError         the server failed on this request                  retry-safe before a token
│   └── EngineBrokenError     the engine itself broke                            retry-safe before a token
├── ServerTimeoutError        no byte within the time allowed                    retry-safe before a token
├── StreamBrokenError         the stream stopped without its end
├── ProtocolError             an answer that is not of the recognised schema
└── UnsupportedFeatureError   the lane cannot do what is asked                   never retried
    └── AdapterUnsendableError  an adapter's weights cannot be brought to the engine  never retried
SchemaError                   introspection found a schema it does not know
TokenizerError                a model's tokenizer or chat template cannot be used
AdapterError                  the folder of a LoRA adapter cannot be used
"""

from __future__ import annotations


class InferenceError(Exception):
    """A call to a model server failed.

    `retry_safe`: another endpoint may be tried, if no token was pushed.
    """

    retry_safe = False
    endpoint_fault = False
    """Counts against the endpoint's breaker."""
    outcome = "failed"
    """The attempt's outcome in metrics."""


class ServerUnreachableError(InferenceError):
    """No connection to the server, or it was lost before the answer began."""

    outcome = "unreachable"
    retry_safe = True
    endpoint_fault = True


class ServerBusyError(InferenceError):
    """The server has no room now."""

    outcome = "busy"
    retry_safe = True


class RequestRefusedError(InferenceError):
    """The server says that the request itself is wrong; `param` names the field where known."""

    outcome = "refused"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PromptTooLongError(RequestRefusedError):
    """The prompt is longer than the engine's input limit."""


class AdapterMissingError(InferenceError):
    """The engine's cache does not hold the LoRA adapter: evicted, or never sent. Sent again, it will."""

    outcome = "adapter_missing"
    retry_safe = True


class UpstreamMisconfiguredError(InferenceError):
    """The server knows not our key, model or path: the operator's to mend, and no sign that it is unwell.

    It leaves the breaker alone, so that one model set up wrongly does not close an endpoint for others.
    """

    outcome = "refused"
    retry_safe = True


class ServerFailedError(InferenceError):
    """The server failed on this request."""

    retry_safe = True
    endpoint_fault = True


class EngineBrokenError(ServerFailedError):
    """The engine itself broke, whatever it was asked: no request can be at fault."""


class ServerTimeoutError(InferenceError):
    """The server sent no byte within the time allowed."""

    outcome = "timeout"
    retry_safe = True
    endpoint_fault = True


class StreamBrokenError(InferenceError):
    """The stream stopped without its end: the answer is incomplete."""

    outcome = "broken"
    retry_safe = True
    endpoint_fault = True


class ProtocolError(InferenceError):
    """The server's answer is not of the schema that introspection recognised."""

    outcome = "protocol"
    retry_safe = True
    endpoint_fault = True


class UnsupportedFeatureError(InferenceError):
    """The lane cannot do what is asked; `param` names the request's field."""

    outcome = "unsupported"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class AdapterUnsendableError(UnsupportedFeatureError):
    """A LoRA adapter's weights cannot be brought to the engine, which is the operator's to mend."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "model")


class SchemaError(Exception):
    """A model's schema is not recognised; the message lists what was found and what is missing."""


class TokenizerError(Exception):
    """A model's tokenizer or chat template cannot be used."""


class AdapterError(Exception):
    """The folder of a LoRA adapter cannot be used; the text names the file and what is wrong with it."""

"""What can go wrong in the CPU engine.

EngineError                 anything the engine reports; the text is fit for a client
├── RequestTooLongError     the prompt does not fit the engine's limits
├── InvalidRequestError     a field of the request has no meaning to this engine
│   └── RejectedRequestError    the same, in the words of the executor's own checks
├── GuideError              the guide of guided decoding cannot be compiled
├── LoraNotCachedError      an adapter is named that was never sent, or was evicted since
├── LoraCacheFullError      every cached adapter is in use, and there is no room for another
├── QueueFullError          the waiting queue holds `max_queue_size` requests
├── EngineClosedError       the engine is closing or closed; also ends what was in flight
└── InjectedFaultError      a test asked for a failure (see `faults.py`)
"""


class EngineError(Exception):
    """Base of everything the engine raises or reports in `EngineOutput.error`."""


class RequestTooLongError(EngineError):
    """The prompt is longer than the engine accepts; nothing was queued."""

    def __init__(self, length: int, maximum: int) -> None:
        super().__init__(f"Prompt length ({length}) exceeds maximum input length ({maximum})")
        self.length = length
        self.maximum = maximum


class InvalidRequestError(EngineError):
    """A field of the request is out of range; the text names the field."""


class RejectedRequestError(InvalidRequestError):
    """A check of the executor failed (`Executor::Impl::fetchNewRequests`); without its stack trace."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "Encountered an error when fetching new request: "
            f"[TensorRT-LLM][ERROR] Assertion failed: {reason}"
        )


class GuideError(EngineError):
    """XGrammar fails on such a guide within a step; here it ends its own request alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Encountered an error in forwardAsync function: {reason}")
        self.reason = reason


class LoraNotCachedError(EngineError):
    """The adapter is not in the cache; its weights must come with the request."""

    def __init__(self, task_id: int) -> None:
        super().__init__(f"LoRA task {task_id} not found in cache. Please send LoRA weights with request")
        self.task_id = task_id


class LoraCacheFullError(EngineError):
    """No cached adapter can be evicted; the request may be sent again later."""

    def __init__(self, task_id: int) -> None:
        super().__init__(f"PEFT Cache is full. Could not store taskId={task_id}")
        self.task_id = task_id


class QueueFullError(EngineError):
    """The waiting queue is full; the request was not queued and may be sent elsewhere."""

    def __init__(self, max_queue_size: int) -> None:
        super().__init__(f"Maximum queue size of {max_queue_size} has been reached, please try again later")
        self.max_queue_size = max_queue_size


class EngineClosedError(EngineError):
    """The engine was closed before the request ended."""


class InjectedFaultError(EngineError):
    """Raised on behalf of a fault hook, never by the engine's own work."""

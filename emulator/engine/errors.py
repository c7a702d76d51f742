"""What can go wrong in the CPU engine.

EngineError                 anything the engine reports; the text is fit for a client
├── RequestTooLongError     the prompt does not fit the engine's limits
├── InvalidRequestError     a field of the request has no meaning to this engine
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


class QueueFullError(EngineError):
    """The waiting queue is full; the request was not queued and may be sent elsewhere."""

    def __init__(self, max_queue_size: int) -> None:
        super().__init__(f"Maximum queue size of {max_queue_size} has been reached, please try again later")
        self.max_queue_size = max_queue_size


class EngineClosedError(EngineError):
    """The engine was closed before the request ended."""


class InjectedFaultError(EngineError):
    """Raised on behalf of a fault hook, never by the engine's own work."""

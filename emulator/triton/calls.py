"""Calls in progress, and noticing that their clients left.

As the C++ model does, a thread asks Triton about every open call each `cancellation_check_period_ms`.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from emulator.engine import Engine, EngineError, EngineOutput, EngineRequest
from emulator.triton.tensors import FINAL

_log = logging.getLogger(__name__)

PARENT_POLL_S = 0.2
PARENT_PATIENCE_S = 10.0


class OpenCall:
    """One Triton request that is being answered; everything sent goes through here.

    Triton forgets a request with its final response, and crashes when asked about it afterwards: so
    sending and asking exclude each other.
    """

    def __init__(self, sender: Any, triton_id: str) -> None:
        self.triton_id = triton_id
        self._sender = sender
        self._lock = threading.RLock()
        self._ended = False

    def send(self, response: Any | None, *, final: bool) -> None:
        """Sends a response, or only the end. Nothing can follow the end."""
        with self._lock:
            if self._ended:
                return
            self._ended = final
            if response is None:
                self._sender.send(flags=FINAL)
            elif final and response.has_error():
                # In one message with the final flag, a model that calls this one never sees the end.
                self._sender.send(response)
                self._sender.send(flags=FINAL)
            else:
                self._sender.send(response, flags=FINAL if final else 0)

    def client_left(self) -> bool:
        """True when Triton was told that nobody waits for this answer any more."""
        with self._lock:
            return not self._ended and bool(self._sender.is_cancelled())

    def cancel(self) -> None:
        """Stops the engine's work for this call."""
        raise NotImplementedError

    def stop(self) -> None:
        """A request with the `stop` tensor names this call."""
        self.cancel()


class OpenCalls:
    """All open calls of one model, by their Triton request id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, set[OpenCall]] = {}

    def add(self, call: OpenCall) -> None:
        with self._lock:
            self._calls.setdefault(call.triton_id, set()).add(call)

    def remove(self, call: OpenCall) -> None:
        with self._lock:
            calls = self._calls.get(call.triton_id, set())
            calls.discard(call)
            if not calls:
                self._calls.pop(call.triton_id, None)

    def all(self) -> list[OpenCall]:
        with self._lock:
            return [call for calls in self._calls.values() for call in calls]

    def stop(self, triton_id: str) -> None:
        """Stops what runs under an id; an unknown one is no error, it may have ended a moment ago."""
        with self._lock:
            calls = list(self._calls.get(triton_id, ()))
        for call in calls:
            call.stop()


class ParentWatch:
    """Ends this process when the server that started it is gone.

    A stub whose server was killed while answers were on their way waits inside Triton's code for ever,
    mostly holding Python's lock, and keeps clients waiting whose connections it inherited. So the
    kernel's alarm ends the process unless Python runs and sees the same parent every now and then.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._ticker = Ticker("parent", PARENT_POLL_S, self._look)

    def start(self) -> None:
        self._look()
        self._ticker.start()

    def stop(self) -> None:
        self._ticker.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _look(self) -> None:
        if os.getppid() != self._parent:
            os._exit(1)
        signal.setitimer(signal.ITIMER_REAL, PARENT_PATIENCE_S)


class Ticker:
    """Calls `work` every `period_s` on a thread of its own until stopped."""

    def __init__(self, name: str, period_s: float, work: Callable[[], None]) -> None:
        self._period_s = period_s
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self._work()
            except Exception:
                _log.exception("%s failed", self._thread.name)


def cancel_abandoned(calls: OpenCalls) -> None:
    """Cancels the calls whose clients left; cancelling twice does no harm."""
    for call in calls.all():
        if call.client_left():
            call.cancel()


def submit(engine: Engine, request: EngineRequest, on_output: Callable[[EngineOutput], None]) -> None:
    """Hands a request of an open call to the engine; a refusal ends the call through `on_output`.

    Whatever the reason: a call that stayed open with nobody to end it would be asked about for ever.
    """
    try:
        engine.submit(request, on_output)
    except Exception as error:
        reason = error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
        on_output(EngineOutput(request.request_id, [], final=True, error=reason))

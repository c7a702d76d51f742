"""What reaches the log output, and what never does."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from telemetry.config import TelemetryConfig
from telemetry.logs import Logs, logs_at_once
from telemetry.redaction import REDACTED, Redactor

logger = logging.getLogger("enginehouse.test")
SECRET = "sk-eh-4f9a8b7c6d5e"


class Output:
    """Logs with an output that can be read back."""

    def __init__(self, config: TelemetryConfig) -> None:
        self.stream = io.StringIO()
        self.logs = Logs(config, self.stream)

    def text(self) -> str:
        self.logs.close()
        return self.stream.getvalue()

    def line(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text())
        return found


@pytest.fixture
def output() -> Iterator[Callable[..., Output]]:
    made: list[Output] = []
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def make(**settings: Any) -> Output:
        made.append(Output(TelemetryConfig(**settings)))
        return made[-1]

    yield make
    assert (root.handlers, root.level) == before, "close puts the former set-up back"


def test_a_process_that_forks_writes_its_lines_itself() -> None:
    root, stream, threads = logging.getLogger(), io.StringIO(), threading.active_count()
    before = root.handlers[:], root.level
    with logs_at_once(TelemetryConfig(), stream):
        assert threading.active_count() == threads
        logger.info("worker started", extra={"authorization": f"Bearer {SECRET}"})
        assert json.loads(stream.getvalue())["message"] == "worker started"
        assert SECRET not in stream.getvalue()
    assert (root.handlers, root.level) == before


def test_a_line_is_one_json_object_with_its_fields(output: Callable[..., Output]) -> None:
    logs = output(service_name="gw")
    logger.info("worker started", extra={"worker": 3, "delay_s": 0.5, "names": ("a", "b")})
    line = logs.line()
    assert line.pop("time").endswith("Z")
    assert line.pop("pid") > 0
    assert line == {
        "level": "INFO",
        "logger": "enginehouse.test",
        "message": "worker started",
        "service": "gw",
        "worker": 3,
        "delay_s": 0.5,
        "names": ["a", "b"],
    }


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_keys_and_passwords_never_appear(output: Callable[..., Output], log_format: str) -> None:
    logs = output(log_format=log_format)
    logger.warning(
        "refused Bearer %s at redis://user:hunter22@host/0",
        SECRET,
        extra={
            "authorization": SECRET,
            "admin_key": SECRET,
            "headers": {"Authorization": f"Bearer {SECRET}", "Accept": "a"},
            "urls": [f"https://u:{SECRET}@h"],
        },
    )
    text = logs.text()
    assert SECRET not in text
    assert "hunter22" not in text
    assert "redis://user:[redacted]@host/0" in text
    assert "Accept" in text


@pytest.mark.parametrize("capture", [True, False])
def test_content_appears_only_when_switched_on(output: Callable[..., Output], capture: bool) -> None:
    logs = output(capture_content=capture)
    logger.error("bad", extra={"prompt": "my diary", "request": {"messages": [{"content": "my diary"}]}})
    word = "diary"
    try:
        raise ValueError(f"cannot read my {word}")
    except ValueError:
        logger.exception("bad")
    assert ("my diary" in logs.text()) is capture


def test_an_exception_is_shown_with_its_place_and_its_cause(output: Callable[..., Output]) -> None:
    logs = output()
    try:
        try:
            raise ConnectionRefusedError("no listener")
        except OSError as error:
            raise RuntimeError("engine gone") from error
    except RuntimeError:
        logger.exception("failed")
    shown = logs.line()["exception"]
    assert "test_logs.py" in shown
    assert shown.index("ConnectionRefusedError: no listener") < shown.index("RuntimeError: engine gone")


def test_lines_below_the_level_are_left_out(output: Callable[..., Output]) -> None:
    logs = output(log_level="WARNING")
    logger.info("quiet")
    assert logs.text() == ""


def test_an_output_that_hangs_never_blocks_who_logs() -> None:
    """Lines wait up to a bound; past it they are counted as dropped."""
    release = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            release.wait(30)
            return len(text)

    logs = Logs(TelemetryConfig(), Stuck())
    for _ in range(10_200):
        logger.info("more")
    dropped = logs.dropped
    assert not logs.close(timeout_s=0.05)
    release.set()
    assert 190 <= dropped <= 200


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("max_tokens", 5, 5),
        ("key_name", "blue", "blue"),
        ("token_count", 7, 7),
        ("context", "basic authentication failed", "basic authentication failed"),
        ("password", "x", REDACTED),
        ("redis_password", "x", REDACTED),
        ("api_key_env", "X", REDACTED),
        ("password", None, None),
        ("data", b"bytes", REDACTED),
        ("body", "x", REDACTED),
    ],
)
def test_what_is_redacted(name: str, value: object, shown: object) -> None:
    assert Redactor().field(name, value) == shown

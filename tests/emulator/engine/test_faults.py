"""Faults happen when asked for, to whom they were meant for, and stop when switched off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from emulator.engine import Fault, FaultSwitch, InjectedFaultError, InvalidRequestError

from .conftest import Client, MakeClient, poll


def switch(path: Path, **fields: Any) -> None:
    """Writes the switch file in one go, as an operator's tool would."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(fields))
    draft.replace(path)


def test_hang_stops_one_request_until_it_is_cancelled(client: Client) -> None:
    client.send("hung", range(8), fault="hang")
    assert len(client.ask(range(9), 5)) == 5
    assert client.tokens("hung") == []
    client.engine.cancel("hung")
    client.finish("hung")
    assert client.last("hung").finish_reason == "cancelled"


def test_hung_requests_hold_their_slots(make_client: MakeClient) -> None:
    client = make_client(max_batch_size=1)
    client.send("hung", range(8), fault="hang")
    poll(lambda: client.engine.stats().scheduled_requests == 1)
    client.send("next", range(8), 2)
    client.engine.cancel("hung")
    client.finish("next")
    client.finish("hung")


def test_hang_engine_stops_everybody(make_client: MakeClient) -> None:
    client = make_client()
    client.send("long", range(8), 200)
    client.wait_for_tokens("long", 2)
    client.send("cause", range(8), fault="hang_engine")
    poll(lambda: _stands_still(client))
    client.engine.cancel("long")
    assert _stands_still(client)
    assert not client.finals("long")
    assert not client.finals("cause")


def test_slow_makes_steps_longer(client: Client) -> None:
    started = time.monotonic()
    client.ask(range(8), 5, fault="slow:40")
    assert time.monotonic() - started >= 5 * 0.040


def test_error_comes_after_the_first_token(client: Client) -> None:
    client.send("r", range(8), 5, fault="error")
    assert len(client.finish("r")[0]) == 1
    assert isinstance(client.last("r").error, InjectedFaultError)
    assert client.last("r").finish_reason is None


def test_error_before_comes_instead_of_the_first_token(client: Client) -> None:
    client.send("r", range(8), 5, fault="error_before")
    assert client.finish("r")[0] == []
    assert isinstance(client.last("r").error, InjectedFaultError)


def test_truncate_ends_without_saying_why(client: Client) -> None:
    client.send("r", range(8), 5, fault="truncate")
    assert len(client.finish("r")[0]) == 1
    assert (client.last("r").finish_reason, client.last("r").error) == (None, None)


def test_wrong_tensor_is_passed_on(client: Client) -> None:
    client.send("r", range(8), 3, fault="wrong_tensor")
    client.finish("r")
    assert {output.fault for output in client.outputs["r"]} == {"wrong_tensor"}


CRASHING = """
import threading
from emulator.engine import *
config = ModelConfig(16, 16, 16, 1, 2, 1, 8, 64)
engine = Engine(Weights.random(config, 1), EngineLimits(max_batch_size=1, max_num_tokens=32, kv_blocks=4))
engine.start()
engine.submit(EngineRequest("r", (1, 2), 4, fault="crash"), lambda output: print("delivered", flush=True))
threading.Event().wait(20)
"""


def test_crash_ends_the_process_before_the_first_token() -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CRASHING], env=environment, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (1, b""), done.stderr


def test_a_switch_hits_the_requests_that_match(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "fault.json"
    client = make_client(faults=FaultSwitch(path))
    switch(path, fault="error", after_tokens=3, match_token_ids=[5, 6])
    client.send("hit", [1, 5, 6, 2], 10)
    client.send("missed", [1, 6, 5, 2], 10)
    hit, missed = client.finish("hit", "missed")
    assert (len(hit), len(missed)) == (3, 10)
    assert isinstance(client.last("hit").error, InjectedFaultError)


def test_a_switch_hits_as_many_requests_as_it_counts(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "fault.json"
    switch(path, fault="error_before", count=2)
    client = make_client(faults=FaultSwitch(path))
    for n in range(5):
        client.send(f"r{n}", range(8), 2)
    client.finish()
    assert [bool(client.last(f"r{n}").error) for n in range(5)] == [True, True, False, False, False]


def test_switching_off_heals_what_hangs(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "fault.json"
    client = make_client(faults=FaultSwitch(path))
    client.send("r", range(8), 200, fault=None)
    client.wait_for_tokens("r", 2)
    switch(path, fault="hang")
    poll(lambda: _stands_still(client))
    path.unlink()
    client.finish("r")
    assert len(client.tokens("r")) == 200


def _stands_still(client: Client) -> bool:
    before = client.engine.stats().iteration_counter
    time.sleep(0.03)
    return client.engine.stats().iteration_counter == before


def test_switching_off_wakes_a_hung_engine(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "fault.json"
    switch(path, fault="hang_engine")
    client = make_client(faults=FaultSwitch(path))
    client.send("r", range(8), 4)
    poll(lambda: client.engine.stats().active_requests == 1)
    path.unlink()
    assert len(client.finish("r")[0]) == 4


def test_a_broken_switch_file_is_logged_and_changes_nothing(
    make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fault.json"
    path.write_text("{")
    client = make_client(faults=FaultSwitch(path))
    assert len(client.ask(range(8), 3)) == 3
    assert "fault file ignored" in caplog.text


@pytest.mark.parametrize("text", ["nap", "slow", "slow:soon", "hang:5", ""])
def test_an_unknown_fault_lists_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="slow"):
        Fault.parse(text)

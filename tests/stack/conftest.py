"""One real stack for all whole-stack tests: real Triton, real Redis, two workers, by `enginehouse up`."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
import yaml

from enginehouse.local.stack import DEMO_STACK
from tests.stack.parsed_models import add_parsed_models
from tests.stack.stack import SCRIPT_FILE, Stack, is_alive

STATS_PERIOD_MS = 10
"""So that the engines' own counters tell when a slot became free."""
LORA_CACHE_BYTES = 200_000
"""Room for two of the shipped adapters: a third one evicts."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`enginehouse up`, ready; Ctrl-C at the end must leave no process behind."""
    directory = tmp_path_factory.mktemp("stack")
    watched = DEMO_STACK.model_dump(mode="json", exclude_defaults=True)
    for server in watched["servers"]:
        for engine in server["engines"]:
            engine["stats_check_period_ms"] = STATS_PERIOD_MS
            if "max_lora_rank" in engine.get("limits", {}):
                engine["limits"]["lora_cache_host_memory_bytes"] = LORA_CACHE_BYTES
            engine["script_file"] = str(directory / SCRIPT_FILE)
    add_parsed_models(watched)
    (directory / "stack.yaml").write_text(yaml.safe_dump(watched))
    with Stack.start(directory, "--workers", "2", "--stack", str(directory / "stack.yaml")) as running:
        yield running
        processes = running.processes()
        assert running.stop() == 0
    left = [line for process, line in processes if is_alive(process)]
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx2.Client]:
    """A client of the stack, with its key."""
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as client:
        yield client

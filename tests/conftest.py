"""What every test runs on: the event loop that the processes use."""

from __future__ import annotations

import gc
import os

# Before anything imports NumPy: threads that spin beside other tests made tests of engines six times as slow.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

gc.disable()  # until all tests are collected: half of that time went into going through what stays anyway

settings.register_profile("house", deadline=None)  # 200 ms for an example measure the machine
settings.load_profile("house")

_OWN_STACK = ("tests/stack/test_fallback.py",)
_STACK = "demo stack"
_STACK_KILLED = "demo stack, parts of which are killed"
_AT_STACK_KILLED = tuple(
    f"tests/stack/test_{name}.py"
    for name in (
        "bad_requests", "cancellation", "cards", "continuation", "dialects", "faults", "openai_sdk",
        "streaming", "tune",
    )
)  # fmt: skip
"""As long as all other tests of the demo stack together."""
_MODELS = "Triton with every emulated model"
_AT_MODELS = tuple(
    f"tests/emulator/triton/test_{name}"
    for name in (
        "bare_model", "encoder_model", "guides", "lora", "probe", "sampling_inputs", "schemas", "text_models",
        "vllm_model",
    )
)  # fmt: skip
_TRITON = "Triton with every lane"
_AT_TRITON = ("tests/inference/test_triton", "tests/inference/test_embeddings")
_LONGEST = (
    _STACK,
    _STACK_KILLED,
    _MODELS,
    "tests/gateway/batch_jobs/test_whole.py",
    "tests/gateway/test_workers.py",
    "tests/enginehouse/test_up.py",
    "tests/router/replay/test_gateways.py",
    "tests/router/replay/test_table.py",
    "tests/model_registry/test_slices.py",
)
"""Begun first, so that nothing long is left to one process at the end while the others have nothing to do."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """uvloop, as in production: its transports differ from asyncio's in details that matter."""
    return {"uvloop": uvloop.new_event_loop}


def _part(nodeid: str) -> str:
    """What one process of a parallel run runs whole: a file, or tests of one demo stack or of one Triton.

    They share what takes long to start.
    """
    path = nodeid.partition("::")[0]
    if path.startswith(_AT_TRITON):
        return _TRITON
    if path.startswith(_AT_MODELS):
        return _MODELS
    if path in _AT_STACK_KILLED:
        return _STACK_KILLED
    return _STACK if path.startswith("tests/stack/") and path not in _OWN_STACK else path


class _ByPart(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _part(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Parts go to whoever is free, in order; xdist's own would begin with those of most tests."""
    config.option.loadscopereorder = False
    return _ByPart(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest parts first."""
    rank = {part: place for place, part in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(_part(item.nodeid), len(rank)))


def pytest_collection_finish() -> None:
    """What is there now stays to the end: the collector need not look at it again."""
    gc.freeze()
    gc.enable()

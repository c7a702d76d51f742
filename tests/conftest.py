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

_OWN_SERVERS = ("tests/stack/test_dialects.py", "tests/stack/test_fallback.py")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """uvloop, as in production: its transports differ from asyncio's in details that matter."""
    return {"uvloop": uvloop.new_event_loop}


def _part(nodeid: str) -> str:
    """What one process of a parallel run runs whole: a file, or all tests of the demo stack.

    They share one stack, which takes long to start.
    """
    path = nodeid.partition("::")[0]
    return "demo stack" if path.startswith("tests/stack/") and path not in _OWN_SERVERS else path


class _ByPart(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _part(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Parts go to whoever is free, in order; xdist's own would begin with those of most tests."""
    config.option.loadscopereorder = False
    return _ByPart(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo stack's tests first, which are the longest part, of them cancellation last.

    It is measured to the tenth of a second, when the other process is done.
    """
    items.sort(key=lambda item: (_part(item.nodeid) != "demo stack", "/test_cancellation" in item.nodeid))


def pytest_collection_finish() -> None:
    """What is there now stays to the end: the collector need not look at it again."""
    gc.freeze()
    gc.enable()

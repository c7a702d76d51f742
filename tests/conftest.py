"""What every test runs on: the event loop that the processes use."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """uvloop, as in production: its transports differ from asyncio's in details that matter."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each process of a parallel run whole files, and one of them all tests of the demo stack, first.

    They share one stack, which takes long to start, and are the longest part. Cancellation comes last, when
    the other process is done: it is measured to the tenth of a second.
    """

    def group(item: pytest.Item) -> str:
        path = item.nodeid.partition("::")[0]
        is_demo = path.startswith("tests/stack/") and not path.endswith("test_fallback.py")
        return "stack" if is_demo and "stack" in getattr(item, "fixturenames", ()) else path

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: (group(item) != "stack", "stack/test_cancellation" in item.nodeid))

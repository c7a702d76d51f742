"""Engines of a real Triton that err, end too early or die: no answer ends falsely clean."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from inference.control import TritonControl, health
from inference.errors import (
    ProtocolError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
)
from inference.introspection import introspect
from inference.lane import TritonReader
from inference.lanes import lane_of
from inference.push_http import HttpPool, Timeouts
from inference.request import InferenceRequest
from inference.schema import Schema
from inference.sink import Sink
from inference.triton_http import TritonHttp
from tests.inference.recording import RecordingSink
from tests.inference.speaking import (
    TARGETS,
    Speaker,
    ended,
)

DEFAULT_TIMEOUTS = Timeouts()


class Faulty:
    """A lane whose requests make the engine misbehave: an undeclared key reaches it as a parameter."""

    def __init__(self, schema: Schema, fault: str) -> None:
        self._lane = lane_of(schema)
        self._fault = fault
        self.name = self._lane.name
        self.takes_stop = False

    def check(self, request: InferenceRequest) -> None:
        self._lane.check(request)

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        return {**self._lane.tensors(request), "fault": self._fault}

    def reader(self, request: InferenceRequest, sink: Sink) -> TritonReader:
        return self._lane.reader(request, sink)


async def faulty(
    speaker: Speaker, target: str, fault: str, timeouts: Timeouts = DEFAULT_TIMEOUTS, **fields: Any
) -> RecordingSink:
    schema = await introspect(speaker.server, target, TARGETS.get(target, "auto"))
    pool = HttpPool(speaker.server.http, timeouts)
    sink = RecordingSink()
    TritonHttp(pool, target, Faulty(schema, fault)).start(speaker.request(**fields), sink)
    await ended(sink)
    pool.close()
    return sink


@pytest.mark.parametrize("target", ["ids", "text", "script", "words", "pages"])
async def test_a_truncated_answer_never_ends_cleanly(speaker: Speaker, target: str) -> None:
    sink = await faulty(speaker, target, "truncate")
    assert isinstance(sink.error, StreamBrokenError)
    assert speaker.text_of(sink)


@pytest.mark.parametrize("target", ["ids", "text", "script", "words", "pages"])
@pytest.mark.parametrize("fault", ["error", "error_before"])
async def test_an_engines_error_is_the_servers_failure(speaker: Speaker, target: str, fault: str) -> None:
    sink = await faulty(speaker, target, fault)
    # BLS ends its stream without a word when the engine fails in the middle.
    assert isinstance(sink.error, ServerFailedError | StreamBrokenError)
    assert "Traceback" not in str(sink.error)


@pytest.mark.parametrize("target", ["ids", "words", "pages"])
async def test_a_malformed_tensor_is_no_answer(speaker: Speaker, target: str) -> None:
    sink = await faulty(speaker, target, "wrong_tensor")
    assert isinstance(sink.error, ProtocolError | ServerFailedError)


async def test_a_model_whose_process_dies_is_seen_and_comes_back(speaker: Speaker) -> None:
    """Triton leaves its requests hanging and calls it ready; our limits and probe do not."""
    assert await health(speaker.server, "fragile", "tensorrt_llm")
    limits = Timeouts(first_byte_s=1.0, idle_s=1.0)
    sink = await faulty(speaker, "fragile", "crash", limits)
    assert isinstance(sink.error, ServerTimeoutError)
    assert not await health(speaker.server, "fragile", "tensorrt_llm")
    refused = await speaker.ask("fragile", "http")
    assert isinstance(refused.error, ServerUnreachableError)
    unload = f"{speaker.server.http}/v2/repository/models/fragile/unload"
    async with aiohttp.ClientSession() as session, session.post(unload, json={}) as answer:
        assert answer.status == 200  # nobody waits for the old copy to go: its requests never end
    async with TritonControl(speaker.server) as control:
        await control.load("fragile")
    assert await health(speaker.server, "fragile", "tensorrt_llm")
    assert (await speaker.ask("fragile", "http")).error is None

"""What the tests ask of a real Triton: streams read event by event, and the engine's own gauges."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import tritonclient.grpc.aio as grpc_client
from tritonclient.utils import np_to_triton_dtype

from enginehouse.local.triton import TritonProcess

Event = dict[str, Any]


class Server:
    """One running Triton, through an HTTP session of the test's own loop."""

    def __init__(self, process: TritonProcess, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.session = session

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.process.http_url}{path}") as response:
            return await response.json(content_type=None)

    async def post(self, path: str, body: Event | None = None) -> tuple[int, Any]:
        async with self.session.post(f"{self.process.http_url}{path}", json=body or {}) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def generate(self, model: str, body: Event) -> tuple[int, Event]:
        return await self.post(f"/v2/models/{model}/generate", body)

    async def stream(self, model: str, body: Event) -> tuple[int, list[Event]]:
        """Status and all events of a stream that ends."""
        async with self.open_stream(model, body) as response:
            return response.status, [event async for event in events(response)]

    def open_stream(self, model: str, body: Event) -> Any:
        return self.session.post(f"{self.process.http_url}/v2/models/{model}/generate_stream", json=body)

    async def gauge(self, family: str, **labels: str) -> float:
        """The value of one gauge on the metrics port."""
        async with self.session.get(self.process.metrics_url) as response:
            text = await response.text()
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for found, value in re.findall(rf"^{family}{{(.*)}} (\S+)$", text, re.MULTILINE):
            if wanted <= set(found.split(",")):
                return float(value)
        raise AssertionError(f"{family} with {labels} is not among the metrics")

    async def active(self, model: str) -> float:
        """Requests that the engine of a bare model holds."""
        return await self.gauge("nv_trt_llm_request_metrics", model=model, request_type="active")

    async def until_active(
        self, model: str, reached: Callable[[float], bool], timeout_s: float = 5.0
    ) -> float:
        """Seconds until the engine's active requests are as wanted."""
        started = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while not reached(await self.active(model)):  # noqa: ASYNC110 - the gauge has no event
                await asyncio.sleep(0.01)
        return time.monotonic() - started

    async def infer(self, model: str, arrays: dict[str, Any]) -> list[dict[str, Any]]:
        """Responses of a gRPC stream by tensor name; half precision cannot be written as JSON.

        Raises InferenceServerException for an answer that is an error.
        """
        inputs = []
        for name, array in arrays.items():
            tensor = grpc_client.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))

        async def requests():  # type: ignore[no-untyped-def]
            yield {"model_name": model, "inputs": inputs, "enable_empty_final_response": True}

        found = []
        async with grpc_client.InferenceServerClient(self.process.grpc_url) as client:
            async for result, error in client.stream_infer(requests()):
                if error is not None:
                    raise error
                response = result.get_response()
                names = [tensor.name for tensor in response.outputs]
                if names:
                    found.append({name: result.as_numpy(name) for name in names})
                if response.parameters["triton_final_response"].bool_param:
                    break
        return found


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Events of a `generate_stream` answer as they come."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def tokens_of(event: Event) -> list[int]:
    """Token ids of one event; Triton writes a tensor with one element as a bare number."""
    ids = event["output_ids"]
    return ids if isinstance(ids, list) else [ids]


def bare_body(max_tokens: int, **more: Any) -> Event:
    """A streaming request to the bare model."""
    prompt = [5, 6, 7]
    return {
        "input_ids": prompt,
        "input_lengths": len(prompt),
        "request_output_len": max_tokens,
        "streaming": True,
        **more,
    }

"""Speaker: starts requests at one real Triton, over either transport, and waits for what it sees."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from inference.client import ModelClients
from inference.control import TritonControl
from inference.introspection import introspect
from inference.push_http import Timeouts
from inference.request import InferenceRequest, Sampling
from inference.sink import Call
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Endpoint, ServerRef
from tests.inference.recording import RecordingSink

TARGETS = {
    "ids": "tensorrt_llm",
    "old_ids": "tensorrt_llm",
    "text": "ensemble",
    "old_text": "ensemble",
    "script": "tensorrt_llm_bls",
    "old_script": "tensorrt_llm_bls",
    "words": "llmapi",
    "old_words": "llmapi",
    "pages": "vllm",
}
OPTION_TARGETS = ("ids", "old_ids", "text", "old_text", "script", "old_script")
Transport = Literal["http", "grpc"]
TRANSPORTS: tuple[Transport, ...] = ("http", "grpc")
WAIT_S = 20.0
CHAT = [{"role": "user", "content": "How do I store a box?"}]
_numbers = itertools.count()


class Speaker:
    """Starts requests at one Triton."""

    def __init__(self, server: ServerRef, tokenizer: ModelTokenizer) -> None:
        self.server = server
        self.tokenizer = tokenizer
        self._clients = ModelClients(Timeouts())

    async def start(
        self,
        target: str,
        transport: Transport,
        sink: RecordingSink,
        request: InferenceRequest,
    ) -> Call:
        schema = await introspect(self.server, target, TARGETS.get(target, "auto"))
        endpoint = Endpoint(
            name=f"{target}-{transport}",
            deployment="d",
            model="m",
            profile="balanced",
            lane=schema.lane,
            target=schema.target,
            http=self.server.http,
            grpc=self.server.grpc,
            transport=transport,
            server_schema=schema.as_dict(),
        )
        return self._clients.of(endpoint).start(request, sink)

    async def ask(self, target: str, transport: Transport, **fields: Any) -> RecordingSink:
        return await self.answer(target, transport, self.request(**fields))

    async def answer(self, target: str, transport: Transport, request: InferenceRequest) -> RecordingSink:
        sink = RecordingSink()
        await self.start(target, transport, sink, request)
        return await ended(sink)

    def request(self, max_tokens: int = 24, stream: bool = True, **fields: Any) -> InferenceRequest:
        """A chat; greedy unless told otherwise."""
        text, ids = self.tokenizer.encode_chat(CHAT)
        stop = fields.pop("stop", ())
        sampling = Sampling(**({"temperature": 0.0} | fields))
        return InferenceRequest(
            id=f"r{next(_numbers)}",
            model="m",
            stream=stream,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            stop_ids=tuple(tuple(self.tokenizer.encode(s, add_special_tokens=False)) for s in stop),
            prompt_ids=ids,
            prompt_text=text,
            prompt_bos=self.tokenizer.bos_token or "",
            end_id=self.tokenizer.end_id,
            pad_id=self.tokenizer.pad_id,
        )

    def text_of(self, sink: RecordingSink) -> str:
        """The answer as text, whichever lane brought it."""
        if not sink.ids:
            return sink.text_so_far
        detokenizer = self.tokenizer.detokenizer()
        return detokenizer.push(sink.ids) + detokenizer.flush()

    async def close(self) -> None:
        await self._clients.close()


async def ended(sink: RecordingSink) -> RecordingSink:
    async with asyncio.timeout(WAIT_S):
        await sink.over.wait()
    return sink


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # between questions to another process


async def idle(control: TritonControl, model: str) -> bool:
    metrics = await control.engine_metrics(model)
    return metrics["nv_trt_llm_request_metrics"]["active"] == 0

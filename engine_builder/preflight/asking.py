"""Asking: requests of preflight to a live server, through the clients that the gateway has."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.client import ModelClients
from inference.errors import InferenceError, ServerTimeoutError, TokenizerError
from inference.push_http import Timeouts
from inference.request import Guide, InferenceRequest, Lora, Sampling, Usage
from inference.schema import Schema
from inference.sink import Call, Delta, FinishReason, TokenScore
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Endpoint, ServerRef

WAIT_S = 120.0
"""The longest an answer may take: the first one after a start may have kernels to load."""
QUESTION = "Tell me about yourself, and count from one to ten."
MAX_TOKENS = 24
_numbers = itertools.count(1)


@dataclass(slots=True)
class Answer:
    """A sink that keeps what is pushed."""

    on_push: Callable[[], None] = lambda: None
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    pushes: int = 0
    """Groups of new tokens or text."""
    reason: FinishReason | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    error: InferenceError | None = None

    def head(self) -> None:
        """Nothing of the answer is here yet."""

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        """Of token-id lanes."""
        self.ids += ids
        self.log_probs += log_probs or ()
        self._pushed()

    def text(self, delta: str, tokens: int | None = None) -> None:  # noqa: ARG002 - a sink's words
        """Of lanes that send text."""
        if delta:
            self.pieces.append(delta)
            self._pushed()

    def scores(self, scores: Sequence[TokenScore]) -> None:
        """Log probabilities of text lanes."""
        self.log_probs += [score.log_prob for score in scores]

    def vectors(self, vectors: Sequence[bytes]) -> None:
        """Never asked for."""

    def data(self, data: bytes) -> None:
        """Never asked for: OpenAI-HTTP answers are read."""

    def delta(self, delta: Delta) -> None:
        """Of OpenAI-HTTP answers."""
        self.text(delta.text or delta.reasoning)

    def flush(self) -> None:
        """Everything is kept at once."""

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:  # noqa: ARG002
        """The answer is whole."""
        self.reason = reason
        self.over.set()

    def lost(self, error: InferenceError) -> None:
        """It is not."""
        self.error = error
        self.over.set()

    def _pushed(self) -> None:
        self.pushes += 1
        self.on_push()


class Asker:
    """Asks one endpoint; close it at the end."""

    def __init__(self, server: ServerRef, schema: Schema, tokenizer: ModelTokenizer | None) -> None:
        self.schema = schema
        self.tokenizer = tokenizer
        self._clients = ModelClients(Timeouts(first_byte_s=WAIT_S))
        self._endpoint = Endpoint(
            name="preflight",
            deployment="preflight",
            model="preflight",
            profile="balanced",
            lane=schema.lane,
            target=schema.target,
            http=server.http,
            grpc=server.grpc,
            api_key_env=server.api_key_env,
            server_schema=schema.as_dict(),
        )

    @property
    def takes_ids(self) -> bool:
        """Prompts and answers are token ids."""
        return self.schema.lane == "tensorrt_llm"

    async def close(self) -> None:
        """Close connections."""
        await self._clients.close()

    async def ask(self, **fields: Any) -> Answer:
        """The whole answer to the question, as `request` takes it. Raises InferenceError."""
        answer = Answer()
        call = self.start(answer, **fields)
        try:
            async with asyncio.timeout(WAIT_S):
                await answer.over.wait()
        except TimeoutError as error:
            call.cancel()
            raise ServerTimeoutError(f"no whole answer within {WAIT_S:g} s") from error
        if answer.error is not None:
            raise answer.error
        return answer

    def start(self, answer: Answer, **fields: Any) -> Call:
        """Ask, and let the answer come."""
        request = self.request(**fields)
        lora = request.lora
        if lora is not None and lora.weights is not None:
            return self._clients.sending_weights(self._endpoint).start(request, answer)
        return self._clients.of(self._endpoint).start(request, answer)

    def said(self, answer: Answer) -> str:
        """An answer's text, whatever the lane sent."""
        if answer.ids and self.tokenizer is not None:
            return self.tokenizer.decode(answer.ids)
        return "".join(answer.pieces)

    def request(
        self,
        *,
        stream: bool = True,
        max_tokens: int = MAX_TOKENS,
        seed: int | None = None,
        log_probs: bool = False,
        stop: str | None = None,
        stop_ids: tuple[int, ...] = (),
        guide: Guide | None = None,
        lora: Lora | None = None,
    ) -> InferenceRequest:
        """The question; greedy unless there is a seed."""
        number = next(_numbers)
        greedy = seed is None
        stops = () if stop is None else (stop,)
        if self.schema.lane == "openai-http":
            return self._of_openai(number, stream, max_tokens, seed, stops)
        text, ids = self._prompt()
        tokenizer = self.tokenizer
        return InferenceRequest(
            id=f"preflight-{number}",
            model="preflight",
            stream=stream,
            max_tokens=max_tokens,
            sampling=Sampling(
                temperature=None if greedy else 1.0,
                top_k=1 if greedy else None,
                seed=seed,
                log_probs=log_probs,
            ),
            guide=guide,
            lora=lora,
            stop=stops,
            stop_ids=(stop_ids,) if stop_ids else (),
            prompt_ids=ids,
            prompt_text=text,
            end_id=None if tokenizer is None else tokenizer.end_id,
            pad_id=None if tokenizer is None else tokenizer.pad_id,
        )

    def _prompt(self) -> tuple[str, list[int]]:
        if self.tokenizer is None:
            return QUESTION, []
        try:
            return self.tokenizer.encode_chat([{"role": "user", "content": QUESTION}])
        except TokenizerError:  # a base model, without a chat template
            return QUESTION, self.tokenizer.encode(QUESTION)

    def _of_openai(
        self, number: int, stream: bool, max_tokens: int, seed: int | None, stops: tuple[str, ...]
    ) -> InferenceRequest:
        body: dict[str, Any] = {
            "model": self.schema.target,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": max_tokens,
            "temperature": 0 if seed is None else 1.0,
        }
        if seed is not None:
            body["seed"] = seed
        if stops:
            body["stop"] = list(stops)
        if stream:
            body["stream"] = True
        return InferenceRequest(
            id=f"preflight-{number}",
            model="preflight",
            stream=stream,
            max_tokens=max_tokens,
            stop=stops,
            body=body,
            relay=False,
        )

"""Timed requests: streamed chats with prompts that nobody has asked before, and what they took."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing
from random import Random
from time import monotonic
from typing import NamedTuple, Self

import aiohttp

from enginehouse.api import chat_stream
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from router.measured import Sample

_WORDS = (
    "line",
    "clear",
    "train",
    "empty",
    "wagon",
    "down",
    "yard",
    "rain",
    "night",
    "water",
    "coal",
    "steam",
)
_TOKENS = ("content", "reasoning_content", "reasoning", "tool_calls")
"""Fields of a delta that tokens came in; a first one may have the role alone."""
_BAD_REQUEST = 400
_FEW, _MORE = 10, 40
"""Words of the prompts by which a tokenizer is measured; small vocabularies make five tokens of each."""


class Timed(NamedTuple):
    """One request's times."""

    sample: Sample
    here: bool
    """It was served by one of the endpoints asked about, and not by others that stand in for them."""


class TimedRequests:
    """Chats with one model; prompts are made to length by what its tokenizer was seen to make of words."""

    def __init__(
        self,
        connection: Connection,
        model: str,
        endpoints: Collection[str],
        output_tokens: int,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        """`session`: whose connections are used again; None: each request makes its own."""
        self._connection = connection
        self._session = session
        self._endpoints = endpoints
        self._model = model
        self._output_tokens = output_tokens
        self._as_long_as_asked = True
        self._dice = Random()
        self._base_tokens, self._tokens_per_word = 0.0, 1.0

    async def calibrate(self) -> Self:
        """Ask for what is needed to make prompts to length. Raises ApiError as the gateway refuses."""
        try:
            first = await self._ask(_FEW)
        except ApiError as error:
            if error.status != _BAD_REQUEST or "min_tokens" not in error.message:
                raise
            self._as_long_as_asked = False  # its lane cannot; answers are as long as they are
            first = await self._ask(_FEW)
        short, longer = first.sample, (await self._ask(_MORE)).sample
        self._tokens_per_word = max(0.1, (longer.prompt_tokens - short.prompt_tokens) / (_MORE - _FEW))
        self._base_tokens = short.prompt_tokens - _FEW * self._tokens_per_word
        return self

    async def ask(self, prompt_tokens: int, output_tokens: int | None = None) -> Timed:
        """One request of about so many tokens. Raises ApiError, and CommandError for an empty answer."""
        words = max(1, round((prompt_tokens - self._base_tokens) / self._tokens_per_word))
        return await self._ask(words, output_tokens)

    async def _ask(self, words: int, output_tokens: int | None = None) -> Timed:
        tokens = output_tokens or self._output_tokens
        # Random from the first word on: a prompt with a known beginning would be answered from the cache.
        text = " ".join(self._dice.choice(_WORDS) for _ in range(words))
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
            **({"min_tokens": tokens} if self._as_long_as_asked else {}),
        }
        first_s = last_s = None
        usage: dict[str, int] = {}
        went: list[str] = []
        began_s = monotonic()
        answer = chat_stream(self._connection, body, went.append, self._session)
        async with answer as events, aclosing(events):
            async for event in events:
                for choice in event.get("choices") or ():
                    last_s = monotonic()
                    if first_s is None and any(choice["delta"].get(name) for name in _TOKENS):
                        first_s = last_s
                usage = event.get("usage") or usage
        if first_s is None or last_s is None or not usage.get("completion_tokens"):
            raise CommandError(
                f"an answer of {self._model} had no tokens, or did not say how many",
                "only models that stream text with its usage can be measured",
            )
        times = first_s - began_s, last_s - began_s
        told = dict(part.partition("=")[::2] for line in went for part in line.split("; "))
        return Timed(
            Sample(usage["prompt_tokens"], usage["completion_tokens"], *times),
            here=told.get("endpoint") in self._endpoints,
        )

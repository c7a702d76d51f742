"""Conversation: what has been said, and the next answer, streamed to the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from enginehouse.api import chat_stream, model_names
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from enginehouse.interrupted import says_what_is_left

Write = Callable[[str], None]


class Conversation:
    """Messages so far with one model; `answer` adds a turn.

    `options` are request fields; those that are None are left to the server.
    """

    def __init__(
        self,
        connection: Connection,
        model: str | None,
        system: str | None = None,
        options: Mapping[str, float | None] | None = None,
    ) -> None:
        self._connection = connection
        self.model = model
        self._messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self._options = {name: value for name, value in (options or {}).items() if value is not None}

    async def choose_model(self) -> str:
        """The model asked for, else the first that the gateway lists."""
        if self.model is None:
            names = await model_names(self._connection)
            if not names:
                raise ApiError("the gateway lists no model", "declare one: `enginehouse apply -f FILE`")
            self.model = names[0]
        return self.model

    async def answer(self, message: str, write: Write) -> None:
        """Say `message`; pass the answer on piece by piece.

        A turn that fails or is cancelled leaves no trace in the conversation.
        """
        model = await self.choose_model()
        turn = {"role": "user", "content": message}
        body = {"model": model, "messages": [*self._messages, turn], **self._options}
        pieces: list[str] = []
        async with chat_stream(self._connection, body) as events, aclosing(events):
            async for event in events:
                if piece := _text(event):
                    pieces.append(piece)
                    write(piece)
        self._messages += [turn, {"role": "assistant", "content": "".join(pieces)}]


def _text(event: Mapping[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


def converse(conversation: Conversation, message: str | None) -> None:
    """One answer to `message` or to what stdin holds; on a terminal without a message, a conversation."""
    if message is None and sys.stdin.isatty():
        _loop(conversation)
        return
    said = sys.stdin.read() if message is None else message
    if not said.strip():
        raise CommandError("nothing to say: the message is empty", 'try: enginehouse chat "Hello"')
    with says_what_is_left(lambda: "the answer is not whole"):
        if not _turn(conversation, said):
            raise KeyboardInterrupt


def _loop(conversation: Conversation) -> None:
    model = asyncio.run(conversation.choose_model())
    _write(f"talking to {model}; Ctrl-C stops an answer, Ctrl-D or an empty line ends\n")
    while said := _ask():
        try:
            _turn(conversation, said)
        except ApiError as error:
            _write(f"error: {error.message}\n")


def _ask() -> str:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        _write("\n")
        return ""


def _turn(conversation: Conversation, said: str) -> bool:
    """False when the operator stopped the answer."""
    try:
        asyncio.run(conversation.answer(said, _write))
    except KeyboardInterrupt:
        _write("\n")
        return False
    _write("\n")
    return True


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

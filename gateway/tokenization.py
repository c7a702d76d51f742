"""What the gateway makes of text and of token ids: `POST /tokenize` and `POST /detokenize`, as vLLM has them.

A chat is rendered and encoded as it would be served, so that its count is the prompt's usage. Fields that are
not listed here are refused, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from aiohttp import web
from msgspec import Meta, Struct

from gateway.access import check_allowed
from gateway.api.errors import bad_request
from gateway.api.fields import FITS, Int32, Message, typed
from gateway.api.json_body import decode_object
from gateway.api.messages import read_conversation
from gateway.api.unserved import refuse_unserved
from gateway.body import read_body
from gateway.config import GatewayConfig
from gateway.json_answer import json_answer
from gateway.prompts import check_ids, refuse_hopeless
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from router.profiles import resolve
from tenancy.keys import authenticate

_FITS = {
    **FITS,
    "prompt": "a string",
    "add_special_tokens": "true or false",
    "add_generation_prompt": "true or false",
    "return_token_strs": "true or false",
    "tokens": "an array of token ids",
    "tokens[]": "a token id: an integer of at least 0",
}
AnyBody = TypeVar("AnyBody", bound=Struct)
ModelName = Annotated[str, Meta(min_length=1, max_length=256)]


class TextBody(Struct):
    """`POST /tokenize` of a text."""

    model: ModelName
    prompt: str
    add_special_tokens: bool | None = None
    """Default: true."""
    return_token_strs: bool | None = None


class ConversationBody(Struct):
    """`POST /tokenize` of a chat; special tokens are those of its template."""

    model: ModelName
    messages: Annotated[list[Message], Meta(min_length=1)]
    add_generation_prompt: bool | None = None
    """Default: true, as chats are served."""
    tools: list[dict[str, Any]] | None = None
    return_token_strs: bool | None = None


class IdsBody(Struct):
    """`POST /detokenize`."""

    model: ModelName
    tokens: list[Int32]


class Tokenization:
    """The two paths of one gateway process."""

    def __init__(
        self, config: GatewayConfig, snapshot: Callable[[], Snapshot], tokenizers: Tokenizers
    ) -> None:
        self._config = config
        self._snapshot = snapshot
        self._tokenizers = tokenizers

    def routes(self) -> list[web.RouteDef]:
        """Raise what `gateway.api.errors` has a row for."""
        return [web.post("/tokenize", self.tokenize), web.post("/detokenize", self.detokenize)]

    async def tokenize(self, request: web.Request) -> web.Response:
        """`POST /tokenize`: the ids of a prompt or a chat, and how many they are."""
        snapshot, raw = await self._read(request)
        if ("messages" in raw) is ("prompt" in raw):
            raise bad_request("Give either `prompt` or `messages`.", "prompt")
        body = _typed(raw, ConversationBody) if "messages" in raw else _typed(raw, TextBody)
        model, tokenizer = await self._tokenizer(request, snapshot, body.model)
        if isinstance(body, ConversationBody):
            ids = await _conversation_ids(body, raw, model, tokenizer)
        else:
            refuse_hopeless(body.prompt, model, tokenizer, "prompt")
            ids = await tokenizer.encode_async(body.prompt, body.add_special_tokens is not False)
        names = [tokenizer.tokenizer.id_to_token(each) for each in ids] if body.return_token_strs else None
        return json_answer(
            {"count": len(ids), "max_model_len": model.context_length, "tokens": ids, "token_strs": names}
        )

    async def detokenize(self, request: web.Request) -> web.Response:
        """`POST /detokenize`: the text of token ids, special tokens included."""
        snapshot, raw = await self._read(request)
        body = _typed(raw, IdsBody)
        model, tokenizer = await self._tokenizer(request, snapshot, body.model)
        if len(body.tokens) > model.context_length:
            raise bad_request(
                f"This model's maximum context length is {model.context_length} tokens; `tokens` has "
                f"{len(body.tokens)}. Send fewer at once.",
                "tokens",
                "context_length_exceeded",
            )
        check_ids(body.tokens, tokenizer, "tokens")
        return json_answer({"prompt": await tokenizer.decode_async(body.tokens)})

    async def _read(self, request: web.Request) -> tuple[Snapshot, dict[str, Any]]:
        """Whoever has no key has no body read."""
        snapshot = self._snapshot()
        authenticate(snapshot, request.headers.get("Authorization"))
        return snapshot, decode_object(await read_body(request, self._config), self._config.limits)

    async def _tokenizer(
        self, request: web.Request, snapshot: Snapshot, name: str
    ) -> tuple[Model, ModelTokenizer]:
        """The model that `name` means to this client, and its tokenizer."""
        identity = authenticate(snapshot, request.headers.get("Authorization"))
        wish = resolve(snapshot, name, None, None, identity.policy.profile_for)
        check_allowed(identity, wish)
        model = wish.model
        if model.tokenizer is None:
            raise bad_request(
                f"The model {name!r} has no tokenizer here: its servers tokenise for themselves. Ask for "
                "another model, or have its operator set `tokenizer`.",
                "model",
                "no_tokenizer",
            )
        return model, await self._tokenizers.get(model)


async def _conversation_ids(
    body: ConversationBody, raw: dict[str, Any], model: Model, tokenizer: ModelTokenizer
) -> list[int]:
    conversation = read_conversation(body.messages, raw["messages"])
    refuse_unserved(conversation.unsupported, conversation.unknown, ())
    text = await tokenizer.render_async(
        conversation.messages,
        body.tools or None,
        add_generation_prompt=body.add_generation_prompt is not False,
    )
    refuse_hopeless(text, model, tokenizer, "messages")
    return await tokenizer.encode_async(text, rendered=True)


def _typed(raw: dict[str, Any], kind: type[AnyBody]) -> AnyBody:
    known: Iterable[str] = kind.__struct_fields__
    refuse_unserved((), [key for key in raw if key not in set(known)], known)
    return typed(raw, kind, fits=_FITS)

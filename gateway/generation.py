"""One generating request from its first byte to its single finish.

The request's task authenticates, parses, routes and then only waits; tokens go from the model server's
connection to the client's transport without it. Whatever happens, the finish runs exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from random import getrandbits
from time import monotonic, time
from typing import Any

from aiohttp import web

from gateway.access import check_allowed, check_modality
from gateway.accounting import Accounts
from gateway.api.answers import DONE, ChatStream, CompletionStream, chat_answer, completion_answer
from gateway.api.answers import Choice as AnswerChoice
from gateway.api.errors import (
    ApiError,
    bad_request,
    draining,
    encode_error,
    encode_error_event,
    request_too_large,
    shape_of,
)
from gateway.api.requests import ApiRequest, BodyLimits, parse_chat, parse_completion
from gateway.config import GatewayConfig
from gateway.embeddings import Embeddings
from gateway.entry import Entry, Kind
from gateway.prompts import read_prompts, relayed, requests_for
from gateway.streaming.choices import Choice, StreamedChoice, WholeChoice
from gateway.streaming.client import PushResponse
from gateway.streaming.text import Assembler
from inference.errors import ServerTimeoutError, ServerUnreachableError, StreamBrokenError
from inference.request import InferenceRequest, Usage
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from router.attempts import Finished, Job, Router
from router.errors import RouterError
from router.profiles import TIERS, Wish, resolve
from telemetry.tracing import Tracing
from tenancy.keys import authenticate

_log = logging.getLogger(__name__)
_OWN_WORDS = (ServerUnreachableError, ServerTimeoutError, StreamBrokenError, RouterError)
"""Errors whose text is ours; a model server's own words may quote the prompt, which no log may hold."""
_TRITON_LANES = frozenset({"tensorrt_llm", "ensemble", "tensorrt_llm_bls", "llmapi", "vllm"})
_OPENAI_LANES = frozenset({"openai-http"})
_BARE_LANE = frozenset({"tensorrt_llm"})
_ID_LANES = _BARE_LANE | _OPENAI_LANES
_PARSERS: dict[str, Callable[[bytes, BodyLimits], ApiRequest]] = {
    "chat": parse_chat,
    "completion": parse_completion,
}


class Generation:
    """Serves every request to a model, from chat to embeddings; owned by one gateway process."""

    def __init__(
        self,
        config: GatewayConfig,
        snapshot: Callable[[], Snapshot],
        tokenizers: Tokenizers,
        router: Router,
        tracing: Tracing,
        accounts: Accounts,
    ) -> None:
        self._config = config
        self._snapshot = snapshot
        self._tokenizers = tokenizers
        self._router = router
        self._tracing = tracing
        self._accounts = accounts
        self._loop = asyncio.get_running_loop()
        self._open: set[Entry] = set()
        self.chat = partial(self._serve, kind="chat")
        """Handler of `POST /v1/chat/completions`."""
        self.completion = partial(self._serve, kind="completion")
        """Handler of `POST /v1/completions`."""
        self.embedding = partial(self._serve, kind="embedding")
        """Handler of `POST /v1/embeddings`."""
        self._embeddings = Embeddings(config, tokenizers, router)
        self.is_draining = False
        """New requests are refused, and connections closed after their answers."""

    @property
    def in_flight(self) -> int:
        """Requests that are open."""
        return len(self._open)

    def cut(self) -> None:
        """End every open request now; their clients are told."""
        for entry in self._open:
            _cut(entry, draining())

    def cut_overdue(self) -> None:
        """End the requests that have taken longer than they may; to be called every second or so.

        One sweep over all costs less than a timer for each.
        """
        allowed_s = self._config.request_timeout_s
        since_s = monotonic() - allowed_s
        for entry in self._open:
            if entry.started_s < since_s and entry.cut is None:
                _cut(entry, _timed_out(allowed_s))

    async def _serve(self, request: web.BaseRequest, kind: Kind) -> web.StreamResponse:
        headers = request.headers
        trace = self._tracing.begin(headers.get("traceparent"), headers.get("tracestate"))
        request_id = f"{getrandbits(96):024x}"
        extra = f"x-request-id: {request_id}\r\nx-trace-id: {trace.trace_id_hex}\r\n".encode()
        response = PushResponse(request, extra, self._config.write_buffer_high_bytes)
        task = asyncio.current_task(self._loop)
        assert task is not None
        entry = Entry(task, trace, request_id, kind, response)
        self._open.add(entry)
        self._accounts.begun()
        try:
            await self._answer(request, entry)
        except asyncio.CancelledError:
            if entry.cut is None:
                entry.client_left = True
                raise
            task.uncancel()
            self._refuse(entry, entry.cut)
        except Exception as error:  # the client gets the error's row of the table, whatever it is
            self._refuse(entry, error)
        finally:
            self._open.discard(entry)
            self._accounts.finished(entry)
        return response

    async def _answer(self, request: web.BaseRequest, entry: Entry) -> None:
        if self.is_draining:
            entry.response.close_after()
            raise draining()
        snapshot = self._snapshot()
        headers = request.headers
        identity = entry.identity = authenticate(snapshot, headers.get("Authorization"))
        content = request.content
        body = content.read_nowait() if content.is_eof() else await self._rest_of_body(request)
        if entry.kind == "embedding":
            profile = headers.get("X-Enginehouse-Profile")
            await self._embeddings.answer(entry, identity, snapshot, body, profile)
            return
        api = entry.api = _PARSERS[entry.kind](body, self._config.limits)
        tier = api.service_tier
        wish = entry.wish = resolve(snapshot, api.model, tier, headers.get("X-Enginehouse-Profile"))
        check_allowed(identity, wish.model)
        check_modality(wish.model, "text")
        lanes = self._lanes(snapshot, wish.model, api)
        tokenizer: ModelTokenizer | None = None
        if lanes is None or lanes & _TRITON_LANES:
            tokenizer = await self._tokenizers.get(wish.model)
        if tokenizer is None:
            requests = [relayed(api, wish.model, entry.request_id)]
        else:
            prompts = await read_prompts(api, wish.model, tokenizer)
            requests = requests_for(api, wish.model, prompts, tokenizer, entry.request_id, self._config)
            entry.usage = Usage(sum(len(prompt.ids) for prompt in prompts), 0)
        entry.routed = True
        if api.stream:
            await self._stream(entry, api, wish, requests, tokenizer, lanes)
        else:
            await self._whole(entry, api, wish, requests, tokenizer, lanes)

    async def _rest_of_body(self, request: web.BaseRequest) -> bytes:
        """The body, where it has not come together with its head."""
        declared = request.content_length
        if declared is not None and declared > self._config.limits.max_body_bytes:
            raise request_too_large(self._config.limits.max_body_bytes)
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                return await request.read()
        except TimeoutError:
            raise _slow_body(self._config.body_timeout_s) from None
        except web.HTTPRequestEntityTooLarge as error:
            raise request_too_large(self._config.limits.max_body_bytes) from error
        except web.RequestPayloadError as error:
            raise bad_request(
                "The body is not what its headers say. Send as much as Content-Length says, packed as "
                "Content-Encoding says.",
                code="invalid_body",
            ) from error

    def _lanes(self, snapshot: Snapshot, model: Model, api: ApiRequest) -> frozenset[str] | None:
        """The lanes that can serve this request. Raises ApiError 400 for what none of the model's can."""
        present: set[str] = {endpoint.lane for endpoint in snapshot.endpoints.get(model.name, ())}
        if present <= _OPENAI_LANES and (present or model.tokenizer is None):
            return _OPENAI_LANES
        if api.unsupported or api.unknown:
            if present & _OPENAI_LANES:
                return _OPENAI_LANES
            api.refuse_unserved()
        if api.prompts and isinstance(api.prompts[0], list):
            return _id_lanes(present, model)
        many = api.n > 1 or (api.prompts is not None and len(api.prompts) > 1)
        return _TRITON_LANES if many else None

    async def _stream(
        self,
        entry: Entry,
        api: ApiRequest,
        wish: Wish,
        requests: list[InferenceRequest],
        tokenizer: ModelTokenizer | None,
        lanes: frozenset[str] | None,
    ) -> None:
        events = _events(entry, api, len(requests))
        choices = []
        for index in range(len(requests)):
            opening = events.role(index) if isinstance(events, ChatStream) else b""
            assembler = None if tokenizer is None else Assembler(tokenizer, api.stop, api.logprobs)
            choices.append(StreamedChoice(index, assembler, events, opening, entry.response))
        entry.choices = choices

        async def one(choice: StreamedChoice, request: InferenceRequest) -> Finished:
            finished = await self._router.run(self._job(entry, wish, request, lanes), choice)
            if finished.endpoint.lane != "openai-http":
                choice.close(choice.why(finished.reason, request))
                if len(choices) > 1:
                    entry.response.flush()
            return finished

        with self._accounts.stream():
            if len(choices) == 1:
                entry.finished = [await one(choices[0], requests[0])]
            else:
                entry.finished = await _all(one(*pair) for pair in zip(choices, requests, strict=True))
        usage = entry.usage = _usage(choices, entry.finished, requests, entry.usage.prompt_tokens)
        response = entry.response
        if not response.begun:
            response.begin()
        if api.include_usage and entry.finished[0].endpoint.lane != "openai-http":
            response.push(events.usage(usage))
        response.push(DONE)
        response.finish()

    async def _whole(
        self,
        entry: Entry,
        api: ApiRequest,
        wish: Wish,
        requests: list[InferenceRequest],
        tokenizer: ModelTokenizer | None,
        lanes: frozenset[str] | None,
    ) -> None:
        make = None if tokenizer is None else partial(Assembler, tokenizer, api.stop, api.logprobs)
        choices = [WholeChoice(index, make) for index in range(len(requests))]
        entry.choices = choices
        if len(choices) == 1:
            entry.finished = [await self._router.run(self._job(entry, wish, requests[0], lanes), choices[0])]
        else:
            entry.finished = await _all(
                self._router.run(self._job(entry, wish, request, lanes), choice)
                for choice, request in zip(choices, requests, strict=True)
            )
        entry.usage = _usage(choices, entry.finished, requests, entry.usage.prompt_tokens)
        relayed_body = choices[0].body
        if relayed_body is not None:
            entry.response.respond(200, relayed_body)
            return
        answered = []
        for choice, finished, request in zip(choices, entry.finished, requests, strict=True):
            text = choice.close(choice.why(finished.reason, request))
            log_probs = choice.assembler.take_log_probs() if choice.assembler else None
            answered.append(AnswerChoice(text, choice.reason, log_probs))
        shared = (_answer_id(entry), int(time()), api.model, answered, entry.usage)
        if entry.kind == "chat":
            entry.response.respond(200, chat_answer(*shared, service_tier=_tier(entry)))
        else:
            entry.response.respond(200, completion_answer(*shared))

    def _job(self, entry: Entry, wish: Wish, request: InferenceRequest, lanes: frozenset[str] | None) -> Job:
        output = min(request.max_tokens or 1 << 30, self._router.config.expected_output_tokens)
        prompt = len(request.prompt_ids) if request.prompt_ids is not None else 0
        return Job(request, wish, prompt + output, entry.trace, lanes)

    def _refuse(self, entry: Entry, error: Exception) -> None:
        """Tell the client, as far as that is still possible."""
        shape = shape_of(error)
        entry.status = shape.status
        entry.error_type = shape.code
        if shape.status >= 500:
            _log_failure(entry, error, unexpected=shape.code == "internal_error")
        response = entry.response
        if response.begun:
            entry.status = 200
            response.push(encode_error_event(shape))
            response.break_off()
            return
        retry = (
            b""
            if shape.retry_after_s is None
            else b"retry-after: %d\r\n" % max(1, round(shape.retry_after_s))
        )
        response.respond(shape.status, encode_error(shape), headers=retry)


def _id_lanes(present: set[str], model: Model) -> frozenset[str]:
    """Lanes that take token ids as they are; a text lane's server would tokenise their text again."""
    if present and not present & _ID_LANES:
        raise bad_request(
            f"`prompt` as token ids is not supported by {model.name!r}, whose server takes text "
            f"({', '.join(sorted(present))}). Send text.",
            "prompt",
            "unsupported_parameter",
        )
    return _BARE_LANE if present & _BARE_LANE or not present else _OPENAI_LANES


def _cut(entry: Entry, error: ApiError) -> None:
    entry.cut = error
    entry.task.cancel()


async def _all(runs: Iterable[Coroutine[Any, Any, Finished]]) -> list[Finished]:
    """Run several choices together; the first failure cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run) for run in runs]
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    return [task.result() for task in tasks]


def _events(entry: Entry, api: ApiRequest, choices: int) -> ChatStream | CompletionStream:
    shared = (_answer_id(entry), int(time()), api.model, choices)
    if entry.kind == "chat":
        return ChatStream(*shared, include_usage=api.include_usage, service_tier=_tier(entry))
    return CompletionStream(*shared, include_usage=api.include_usage)


def _tier(entry: Entry) -> str | None:
    """The tier that served, where the client named one, in OpenAI's words."""
    if entry.api is None or entry.api.service_tier is None or entry.wish is None:
        return None
    return TIERS.get(entry.wish.profile, "default")


def _answer_id(entry: Entry) -> str:
    return f"chatcmpl-{entry.request_id}" if entry.kind == "chat" else f"cmpl-{entry.request_id}"


def _usage(
    choices: Sequence[Choice],
    finished: Sequence[Finished],
    requests: Sequence[InferenceRequest],
    prompt_tokens: int | None,
) -> Usage:
    """The whole request's usage: each prompt counts once, every choice's answer counts."""
    if finished[0].endpoint.lane == "openai-http":
        return finished[0].usage
    completion = sum(
        choice.assembler.completion_tokens(
            end.reason, end.usage.completion_tokens, request.max_tokens, end.usage.ended_by_text
        )
        for choice, end, request in zip(choices, finished, requests, strict=True)
        if choice.assembler
    )
    cached = max((end.usage.cached_tokens or 0 for end in finished), default=0)
    return Usage(prompt_tokens, completion, min(cached, prompt_tokens or 0))


def _slow_body(allowed_s: float) -> ApiError:
    return ApiError(
        408,
        f"The body did not arrive within the {allowed_s:g} s allowed here. Send it at once.",
        code="body_timeout",
    )


def _timed_out(allowed_s: float) -> ApiError:
    return ApiError(
        504,
        f"The request took longer than the {allowed_s:g} s allowed here. Ask for fewer tokens, or stream.",
        "server_error",
        "request_timeout",
    )


def _log_failure(entry: Entry, error: Exception, *, unexpected: bool) -> None:
    fields = {
        "request_id": entry.request_id,
        "trace_id": entry.trace.trace_id_hex,
        "model": entry.wish.model.name if entry.wish else None,
        "error": type(error).__name__,
        "detail": str(error) if isinstance(error, _OWN_WORDS) else None,
    }
    if unexpected:
        _log.error("request failed unexpectedly", extra=fields, exc_info=error)
    else:
        _log.warning("request failed", extra=fields)

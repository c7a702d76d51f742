"""One request to a model from its first byte to its single finish.

The request's task authenticates, parses, routes and then only waits; tokens go from the model server's
connection to the client's transport without it. Whatever happens, the finish runs exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from random import getrandbits
from time import monotonic, time
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from gateway.access import check_allowed, check_modality
from gateway.accounting import Accounts
from gateway.api.answers import DONE
from gateway.api.errors import (
    ApiError,
    draining,
)
from gateway.api.requests import ApiRequest
from gateway.assembling import RELAYED, Assembling, assembling_for
from gateway.batch_jobs.answer import KeptResponse, RowAnswer
from gateway.best_of import best
from gateway.body import read_body
from gateway.config import GatewayConfig
from gateway.decisions import ASKED, header_of
from gateway.embeddings import Embeddings
from gateway.entry import Arrived, Entry
from gateway.fallback import has_stand_in, stand_in
from gateway.lanes import TRITON_LANES, lanes_for
from gateway.limits import estimated_prompt, reserve
from gateway.operations import GeneratingOperation, Head, Operation
from gateway.operations.chat import ChatCompletion
from gateway.operations.completion import TextCompletion
from gateway.operations.embedding import Embedding
from gateway.operations.messages import Messages
from gateway.operations.responses import Responses
from gateway.plain_requests import PlainRequest
from gateway.prompts import ids_to_route_by, read_prompts, relayed, requests_for
from gateway.refusal import refuse, timed_out
from gateway.shadow.watched import Watched
from gateway.streaming.choices import Choice, StreamedChoice
from gateway.streaming.client import PushResponse
from gateway.streaming.whole_choice import WholeChoice
from gateway.usage import usage_of
from inference.adapters import Adapters
from inference.request import InferenceRequest, Usage
from inference.sink import FinishReason
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Adapter, Endpoint, Model
from model_registry.snapshot import Snapshot
from router.attempts import Finished, Router
from router.errors import PassedOnError
from router.job import Job
from router.profiles import BATCH_JOB, TIERS, Wish, resolve
from router.spare import PROFILE as SPARE_PROFILE
from telemetry.tracing import Tracing
from tenancy.keys import Identity, authenticate
from tenancy.limits import TenantLimits
from tenancy.limits_spec import NO_LIMITS

OPERATIONS: tuple[GeneratingOperation, ...] = (
    ChatCompletion(),
    TextCompletion(),
    Responses(),
    Messages(),
)
Respond = Callable[[Entry, Arrived], Awaitable[None]]
"""Responds to a request, or raises what its client is to see."""


class Generation:
    """Serves every request to a model, from chat to embeddings; owned by one gateway process."""

    def __init__(
        self,
        config: GatewayConfig,
        snapshot: Callable[[], Snapshot],
        tokenizers: Tokenizers,
        adapters: Adapters,
        router: Router,
        tracing: Tracing,
        accounts: Accounts,
        limits: TenantLimits,
    ) -> None:
        self._limits = limits
        self._config = config
        self._snapshot = snapshot
        self._tokenizers = tokenizers
        self._adapters = adapters
        self._router = router
        self._tracing = tracing
        self._accounts = accounts
        self._loop = asyncio.get_running_loop()
        self._open: set[Entry] = set()
        responders: list[tuple[Operation, Respond]] = [
            *((operation, partial(self._generate, operation)) for operation in OPERATIONS),
            (Embedding(), Embeddings(config, tokenizers, router, limits).respond),
        ]
        self.handlers = {
            operation.path: partial(self._serve, operation=operation, respond=respond)
            for operation, respond in responders
        }
        """Handlers of POSTs, by path."""
        self.on_watched: Callable[[Entry, Watched], None] | None = None
        """Called at the end of each request of a model whose rollout is under way."""
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
        now_s, longest_s = monotonic(), self._config.request_timeout_s
        for entry in self._open:
            allowed_s = longest_s if entry.allowed_s is None else min(longest_s, entry.allowed_s)
            if entry.started_s < now_s - allowed_s and entry.cut is None:
                _cut(entry, timed_out(allowed_s))

    async def _serve(
        self, request: web.BaseRequest | PlainRequest, operation: Operation, respond: Respond
    ) -> web.StreamResponse:
        headers = request.headers
        trace = self._tracing.begin(headers.get("traceparent"), headers.get("tracestate"))
        request_id = f"{getrandbits(96):024x}"
        extra = f"{operation.id_header}: {request_id}\r\nx-trace-id: {trace.trace_id_hex}\r\n".encode()
        response = PushResponse(request, extra, self._config.write_buffer_high_bytes)
        task = asyncio.current_task(self._loop)
        assert task is not None
        entry = Entry(task, trace, request_id, operation, response)
        if self._config.explain_header and headers.get("x-enginehouse-explain") in ASKED:
            response.more_headers = partial(header_of, self._router, request_id, trace.attempts)
        await self._live(entry, self._answer(request, entry, respond))
        return response

    async def _live(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        """A request from its begin to its single finish; `work` answers it, or raises."""
        self._open.add(entry)
        self._accounts.begun()
        try:
            await work
        except asyncio.CancelledError:
            if entry.cut is None:
                entry.client_left = True
                raise
            entry.task.uncancel()
            refuse(entry, entry.cut)
        except Exception as error:  # the client gets the error's row of the table, whatever it is
            refuse(entry, error)
        finally:
            self._open.discard(entry)
            self._accounts.finished(entry)
            if entry.watched is not None and self.on_watched is not None:
                self.on_watched(entry, entry.watched)

    async def answer_row(
        self,
        identity: Identity,
        operation: GeneratingOperation,
        body: bytes,
        spare: Callable[[Endpoint], bool],
    ) -> RowAnswer:
        """Answer a row of a batch job as a request, without a connection, where `spare` says there is room.

        For a task of its own: that is what is cancelled when the row is cut.
        """
        task = asyncio.current_task(self._loop)
        assert task is not None
        response = KeptResponse()
        request_id = f"{getrandbits(96):024x}"
        trace = self._tracing.begin(None, None)
        entry = Entry(task, trace, request_id, operation, response, identity=identity, spare=spare)
        await self._live(entry, self._answer_row(operation, entry, identity, body))
        return RowAnswer(entry.status, response.body, request_id, entry.error_type, entry.usage)

    async def _answer_row(
        self, operation: GeneratingOperation, entry: Entry, identity: Identity, body: bytes
    ) -> None:
        if self.is_draining:
            raise draining()
        snapshot = self._snapshot()
        api = entry.api = operation.parse(body, self._config.limits)
        named = resolve(snapshot, api.model, api.service_tier, None)
        entry.wish = replace(named, profile=SPARE_PROFILE, reason=BATCH_JOB)
        await self._run(operation, entry, snapshot, identity, api, entry.wish)

    async def _answer(self, request: web.BaseRequest | PlainRequest, entry: Entry, respond: Respond) -> None:
        if self.is_draining:
            entry.response.close_after()
            raise draining()
        snapshot = self._snapshot()
        headers = request.headers
        identity = entry.identity = authenticate(
            snapshot, headers.get("authorization"), headers.get("x-api-key")
        )
        entry.allowed_s = identity.policy.deadline_s
        body = request.body if isinstance(request, PlainRequest) else await read_body(request, self._config)
        await respond(entry, Arrived(identity, snapshot, body, headers.get("x-enginehouse-profile")))

    async def _generate(self, operation: GeneratingOperation, entry: Entry, arrived: Arrived) -> None:
        api = entry.api = operation.parse(arrived.body, self._config.limits)
        identity, snapshot = arrived.identity, arrived.snapshot
        wish = entry.wish = resolve(
            snapshot, api.model, api.service_tier, arrived.profile, identity.policy.profile_for
        )
        entry.has_stand_in = has_stand_in(snapshot, identity.policy, wish, {wish.name})
        try:
            await self._run(operation, entry, snapshot, identity, api, wish)
        except Exception as error:
            if identity.policy.fallbacks and await self._fall_back(operation, entry, arrived, error):
                return
            if not isinstance(error, PassedOnError):
                raise
            entry.has_stand_in = False
            entry.choices, entry.finished, entry.usage = (), (), Usage()
            await self._run(operation, entry, snapshot, identity, api, wish)

    async def _fall_back(
        self, operation: GeneratingOperation, entry: Entry, arrived: Arrived, error: Exception
    ) -> bool:
        """Have other models answer after `error`, as the tenant's policy says; whether one has.

        Otherwise what the client hears is why the model it asked for did not, or it waits for that.
        """
        if entry.response.begun:
            return False
        asked, failed = entry.api, entry.wish
        assert asked is not None
        assert failed is not None
        wish, tried = failed, {failed.name}
        while (
            found := stand_in(arrived.snapshot, arrived.identity.policy, failed, tried, error)
        ) is not None:
            failed = entry.wish = found.wish
            tried.add(failed.name)
            api = entry.api = replace(asked, model=found.name)
            entry.choices, entry.finished, entry.events, entry.usage = (), (), None, Usage()
            entry.response.add_headers(found.header)
            entry.has_stand_in = has_stand_in(arrived.snapshot, arrived.identity.policy, failed, tried)
            try:
                await self._run(operation, entry, arrived.snapshot, arrived.identity, api, failed)
            except Exception as later:
                if entry.response.begun:
                    raise
                error = later
            else:
                return True
        entry.api, entry.wish, entry.events = asked, wish, None
        return False

    async def _run(
        self,
        operation: GeneratingOperation,
        entry: Entry,
        snapshot: Snapshot,
        identity: Identity,
        api: ApiRequest,
        wish: Wish,
    ) -> None:
        """Answer what was read and resolved."""
        check_allowed(identity, wish)
        check_modality(wish.model, "text")
        lanes = lanes_for(snapshot, wish.model, api)
        assembling = RELAYED
        tokenizer: ModelTokenizer | None = None
        if lanes is None or lanes & TRITON_LANES:
            tokenizer = await self._tokenizers.get(wish.model)
        if tokenizer is None:
            requests = [relayed(api, wish.model, entry.request_id, operation.upstream_path)]
            if wish.model.tokenizer is not None and _some_tell_kv(snapshot, wish.model):
                requests[0].prompt_ids = await ids_to_route_by(api, wish.model, self._tokenizers)
        else:
            prompts = await read_prompts(api, wish.model, tokenizer)
            requests = requests_for(
                api,
                wish.model,
                prompts,
                tokenizer,
                entry.request_id,
                self._config,
                operation.upstream_path,
            )
            entry.usage = Usage(sum(len(prompt.ids) for prompt in prompts), 0)
            assembling = assembling_for(api, wish.model, prompts, requests, tokenizer)
        if wish.adapter is not None:
            await self._add_adapter(wish.adapter, requests, by_id=tokenizer is not None)
        if (rolling := snapshot.rolling.get(wish.model.name)) is not None and entry.spare is None:
            entry.watched = Watched(rolling, requests, assembling, lanes)
        if identity.policy.limits != NO_LIMITS:
            tokens = partial(self._tokens, api, requests, entry.usage.prompt_tokens)
            await reserve(self._limits, entry, identity, tokens)
        entry.routed = True
        if api.stream:
            await self._stream(operation, entry, api, wish, requests, assembling, lanes)
        else:
            await self._whole(operation, entry, api, wish, requests, assembling, lanes)

    def _tokens(self, api: ApiRequest, requests: list[InferenceRequest], prompt: int | None) -> int:
        """About what all choices will cost, by what an answer is expected to be."""
        if prompt is None:
            prompt = estimated_prompt(api)
        expected = self._router.config.expected_output_tokens
        answers = api.answers if len(requests) == 1 else 1
        return prompt + answers * sum(min(one.max_tokens or expected, expected) for one in requests)

    async def _add_adapter(
        self, adapter: Adapter, requests: Iterable[InferenceRequest], *, by_id: bool
    ) -> None:
        """The adapter that answers are computed with; its files are read where an engine may want them."""
        lora = await self._adapters.identify(adapter) if by_id else self._adapters.by_name(adapter)
        for request in requests:
            request.lora = lora

    async def _stream(
        self,
        operation: GeneratingOperation,
        entry: Entry,
        api: ApiRequest,
        wish: Wish,
        requests: list[InferenceRequest],
        assembling: Assembling,
        lanes: frozenset[str] | None,
    ) -> None:
        events = entry.events = operation.events(_head(entry, api), len(requests))
        choices = []
        make = assembling.make
        for index, echo in enumerate(assembling.echoes):
            assembler, parser = None if make is None else make(), assembling.parser()
            choices.append(StreamedChoice(index, assembler, events, entry.response, parser, echo))
        entry.choices = choices
        if entry.watched is not None:
            entry.watched.listen(choices[0])

        async def one(choice: StreamedChoice, request: InferenceRequest) -> Finished:
            finished = await self._router.run(self._job(entry, wish, request, lanes), choice)
            if not _is_relayed(finished, request):
                choice.close(_reason(choice, finished, request))
                if len(choices) > 1:
                    entry.response.flush()
            return finished

        self._accounts.stream_begins()
        try:
            if len(choices) == 1:
                entry.finished = [await one(choices[0], requests[0])]
            else:
                entry.finished = await _all(one(*pair) for pair in zip(choices, requests, strict=True))
        finally:
            self._accounts.stream_ends()
        usage = entry.usage = usage_of(
            choices, entry.finished, requests, entry.usage.prompt_tokens, assembling.parsing
        )
        response = entry.response
        if not response.begun:
            response.begin()
        response.push(DONE if _is_relayed(entry.finished[0], requests[0]) else events.end(usage))
        response.finish()

    async def _whole(
        self,
        operation: GeneratingOperation,
        entry: Entry,
        api: ApiRequest,
        wish: Wish,
        requests: list[InferenceRequest],
        assembling: Assembling,
        lanes: frozenset[str] | None,
    ) -> None:
        choices = [WholeChoice(index, assembling.make, echo) for index, echo in enumerate(assembling.echoes)]
        entry.choices = choices
        if len(choices) == 1:
            entry.finished = [await self._router.run(self._job(entry, wish, requests[0], lanes), choices[0])]
        elif entry.spare is not None:  # what is spare may be one slot: choices must not wait for each other
            entry.finished = [
                await self._router.run(self._job(entry, wish, request, lanes), choice)
                for choice, request in zip(choices, requests, strict=True)
            ]
        else:
            entry.finished = await _all(
                self._router.run(self._job(entry, wish, request, lanes), choice)
                for choice, request in zip(choices, requests, strict=True)
            )
        entry.usage = usage_of(
            choices, entry.finished, requests, entry.usage.prompt_tokens, assembling.parsing
        )
        relayed_body = choices[0].body
        if relayed_body is not None:
            entry.response.respond(200, relayed_body)
            return
        answered = [
            choice.close(_reason(choice, finished, request), assembling.parser())
            for choice, finished, request in zip(choices, entry.finished, requests, strict=True)
        ]
        if api.answers > api.n:
            answered = best(answered, api.answers, api.n, with_log_probs=api.logprobs)
        entry.response.respond(200, operation.answer(_head(entry, api), answered, entry.usage))

    def _job(self, entry: Entry, wish: Wish, request: InferenceRequest, lanes: frozenset[str] | None) -> Job:
        output = min(request.max_tokens or 1 << 30, self._router.config.expected_output_tokens)
        if request.prompt_ids is not None:
            prompt = len(request.prompt_ids)
        else:  # no tokenizer here has read it
            prompt = 0 if entry.api is None else estimated_prompt(entry.api)
        job = Job(request, wish, prompt + output, entry.trace, lanes, entry.spare, output_tokens=output)
        job.deadline_s = entry.started_s + self._config.request_timeout_s
        job.on_held, job.has_stand_in = entry.was_held, entry.has_stand_in
        if entry.identity is not None:
            policy = entry.identity.policy
            job.tenant, job.weight, job.priority = policy.tenant, policy.weight, policy.priority
            job.isolation_class, job.selection = policy.isolation_class, policy.selection
            if policy.deadline_s is not None:
                job.deadline_s = min(job.deadline_s, entry.started_s + policy.deadline_s)
        if entry.api is not None and isinstance(key := entry.api.raw.get("prompt_cache_key"), str):
            job.session = key
        return job


def _some_tell_kv(snapshot: Snapshot, model: Model) -> bool:
    """Whether an engine of the model publishes KV events."""
    return any(one.kv_events is not None for one in snapshot.endpoints.get(model.name, ()))


def _is_relayed(finished: Finished, request: InferenceRequest) -> bool:
    """The answer's bytes were the upstream's own."""
    return request.relay and finished.endpoint.lane == "openai-http"


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


def _head(entry: Entry, api: ApiRequest) -> Head:
    tier = None
    if api.service_tier is not None and entry.wish is not None:
        tier = TIERS.get(entry.wish.profile, "default")
    return Head(entry.request_id, int(time()), api, tier, entry.usage.prompt_tokens)


def _reason(choice: Choice, finished: Finished, request: InferenceRequest) -> FinishReason:
    """Why an answer of a Triton lane ended, also where the server does not tell."""
    if finished.reason is not None or choice.assembler is None:
        return finished.reason or "stop"
    return choice.assembler.ending(request.max_tokens)

"""A small OpenAI-HTTP server over the CPU engine, for where the real Triton cannot run, and for tests.

`python -m emulator.openai_server --model-dir DIR --name NAME [--model-dir …] --port 0 --ready-file F`
serves `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/models` and `/health` on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from emulator.engine import (
    Engine,
    EngineError,
    EngineLimits,
    EngineOutput,
    EngineRequest,
    FaultSwitch,
    Pacing,
    QueueFullError,
    RequestTooLongError,
    SamplingParams,
    Weights,
)
from emulator.engine.encoder import Encoder
from emulator.engine.tokenizer import EngineTokenizer
from emulator.openai_answers import Answer, usage_of
from emulator.openai_asks import Ask, BadRequestError, UnservedError, read_ask, refuse_unserved
from emulator.openai_embeddings import BadEmbeddingRequestError, embeddings_answer
from emulator.openai_kv_events import kv_cache_events
from emulator.openai_pieces import ChoiceText, Piece
from telemetry.whole_file import write_whole

_MODELS = web.AppKey("models", dict[str, "ServedModel"])
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One engine under one name."""

    name: str
    engine: Engine
    tokenizer: EngineTokenizer
    encoder: Encoder

    @classmethod
    def load(
        cls,
        name: str,
        model_dir: Path,
        limits: EngineLimits | None = None,
        pacing: str = "none",
        fault_file: Path | None = None,
    ) -> ServedModel:
        """Reads the model folder; the engine is not started."""
        faults = FaultSwitch(fault_file) if fault_file else None
        weights = Weights.load(model_dir)
        engine = Engine(weights, limits or EngineLimits(), Pacing.load(pacing), faults)
        return cls(name, engine, EngineTokenizer(model_dir), Encoder(weights))


def create_app(models: Sequence[ServedModel]) -> web.Application:
    """The application; starts the engines with itself and closes them at its end."""
    app = web.Application()
    app[_MODELS] = {model.name: model for model in models}
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/completions", _completions)
    app.router.add_post("/v1/embeddings", _embeddings)
    buffers = [model.engine.kv_events for model in models if model.engine.kv_events is not None]
    for buffer in buffers[:1]:
        app.router.add_post("/kv_cache_events", kv_cache_events(buffer))
    app.cleanup_ctx.append(_engines)
    return app


async def _engines(app: web.Application) -> AsyncIterator[None]:
    engines = [model.engine for model in app[_MODELS].values()]
    for engine in engines:
        engine.start()
    yield
    await asyncio.gather(*(asyncio.to_thread(engine.close) for engine in engines))


async def _health(_: web.Request) -> web.Response:
    return web.Response()


async def _models(request: web.Request) -> web.Response:
    cards = [
        {"id": name, "object": "model", "created": 0, "owned_by": "emulator"} for name in request.app[_MODELS]
    ]
    return web.json_response({"object": "list", "data": cards})


async def _chat(request: web.Request) -> web.StreamResponse:
    return await _serve(request, chat=True)


async def _completions(request: web.Request) -> web.StreamResponse:
    return await _serve(request, chat=False)


async def _embeddings(request: web.Request) -> web.Response:
    try:
        body = await request.json()
        model = request.app[_MODELS].get(str(body.get("model")))
        if model is None:
            return _error(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
        if body.get("dimensions"):
            raise UnservedError("dimensions")
        answer = await embeddings_answer(body, model.name, model.tokenizer, model.encoder)
        return web.json_response(answer)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return _error(400, f"the body is not JSON: {error}", None)
    except UnservedError as error:
        return _error(400, str(error), "unsupported_parameter", error.field)
    except BadEmbeddingRequestError as error:
        return _error(400, str(error), None)


async def _serve(request: web.Request, *, chat: bool) -> web.StreamResponse:
    try:
        body = await request.json()
        if not isinstance(body, dict):
            raise BadRequestError("the body must be a JSON object")
        model = request.app[_MODELS].get(str(body.get("model")))
        if model is None:
            return _error(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
        refuse_unserved(body)
        ask = read_ask(body, model.tokenizer, chat=chat)
        answer = Answer(model.name, chat=chat, tier=body.get("service_tier"))
        if ask.stream:
            return await _stream(request, model, ask, answer)
        return web.json_response(await _whole(model, ask, answer))
    except QueueFullError as error:
        return _error(429, str(error), "rate_limit_exceeded")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return _error(400, f"the body is not JSON: {error}", None)
    except UnservedError as error:
        return _error(400, str(error), "unsupported_parameter", error.field)
    except RequestTooLongError as error:
        return _error(400, str(error), "context_length_exceeded", "messages" if chat else "prompt")
    except (BadRequestError, EngineError) as error:
        return _error(400, str(error), None)


async def _stream(request: web.Request, model: ServedModel, ask: Ask, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    tokens: dict[int, int] = {}
    async with aclosing(generate(model, ask)) as pieces:
        piece: Piece | None = await anext(pieces)  # a refusal comes before the status
        await response.prepare(request)
        await response.write(_event(answer.opening(ask.choices)))
        try:
            while piece is not None:
                tokens[piece.index] = piece.output_tokens
                await response.write(_event(answer.chunk(piece)))
                piece = await anext(pieces, None)
        except EngineError as error:  # broken under 200: say so, and leave out [DONE]
            await response.write(_event({"error": {"message": str(error), "type": "server_error"}}))
            return response
    if ask.include_usage:
        usage = usage_of(len(ask.prompt), sum(tokens.values()))
        await response.write(_event({**answer.head(chunk=True), "choices": [], "usage": usage}))
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def _whole(model: ServedModel, ask: Ask, answer: Answer) -> dict[str, Any]:
    texts = [""] * ask.choices
    ends = [Piece(index) for index in range(ask.choices)]
    async with aclosing(generate(model, ask)) as pieces:
        async for piece in pieces:
            texts[piece.index] += piece.text
            ends[piece.index] = piece
    choices = [answer.choice(index, texts[index], ends[index]) for index in range(ask.choices)]
    usage = usage_of(len(ask.prompt), sum(end.output_tokens for end in ends))
    return {**answer.head(chunk=False), "choices": choices, "usage": usage}


async def generate(model: ServedModel, ask: Ask) -> AsyncGenerator[Piece, None]:
    """Pieces of all choices as they come. Leaving early cancels what still runs in the engine."""
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[EngineOutput] = asyncio.Queue()

    def deliver(output: EngineOutput) -> None:
        loop.call_soon_threadsafe(news.put_nowait, output)

    texts = {
        f"o{next(_numbers)}": ChoiceText(index, model.tokenizer, ask.stops) for index in range(ask.choices)
    }
    running = set(texts)
    try:
        for number, text in texts.items():
            request = _engine_request(number, text.index, ask, model.tokenizer)
            model.engine.submit(request, deliver)
        while running:
            output = await news.get()
            if output.error is not None:
                raise output.error
            piece = texts[output.request_id].add(output)
            if output.final or piece.finish_reason:
                running.discard(output.request_id)
                if not output.final:
                    model.engine.cancel(output.request_id)
                yield piece
            elif piece.text and output.request_id in running:
                yield piece
    finally:
        for number in running:
            model.engine.cancel(number)


def _engine_request(number: str, index: int, ask: Ask, tokenizer: EngineTokenizer) -> EngineRequest:
    params = ask.sampling
    if params.seed is not None and index:
        params = SamplingParams(
            temperature=params.temperature,
            top_p=params.top_p,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            seed=(params.seed + index) % 2**64,
        )
    return EngineRequest(
        request_id=number,
        input_ids=ask.prompt,
        max_tokens=ask.max_tokens,
        end_id=tokenizer.eos_id,
        sampling=params,
        fault=ask.fault,
    )


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _error(status: int, message: str, code: str | None, param: str | None = None) -> web.Response:
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.json_response({"error": error}, status=status)


async def _run(models: Sequence[ServedModel], host: str, port: int, ready_file: Path | None) -> None:
    runner = web.AppRunner(create_app(models), handler_cancellation=True)
    await runner.setup()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await web.TCPSite(runner, host, port).start()
        address = runner.addresses[0]
        ready = json.dumps({"base_url": f"http://{host}:{address[1]}/v1", "models": [m.name for m in models]})
        if ready_file is not None:
            write_whole(ready_file, ready)
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m emulator.openai_server")
    parser.add_argument(
        "--model-dir", type=Path, action="append", required=True, help="folder; may be repeated"
    )
    parser.add_argument(
        "--name", action="append", required=True, help="one per --model-dir, in the same order"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--ready-file", type=Path, help="written once it serves: base_url and models")
    parser.add_argument("--pacing", default="none", help="card of the GPU engine whose time is kept")
    parser.add_argument("--fault-file", type=Path, help="switch file of fault hooks")
    parser.add_argument(
        "--kv-events", type=int, default=0, metavar="N", help="keep N events for /kv_cache_events; 0: none"
    )
    options = parser.parse_args(arguments)
    if len(options.name) != len(options.model_dir):
        parser.error("give one --name for each --model-dir")
    if options.kv_events and len(options.name) > 1:
        parser.error("--kv-events: as trtllm-serve, for a single model")
    limits = EngineLimits(event_buffer_max_size=options.kv_events)
    models = [
        ServedModel.load(name, folder, limits, pacing=options.pacing, fault_file=options.fault_file)
        for name, folder in zip(options.name, options.model_dir, strict=True)
    ]
    asyncio.run(_run(models, options.host, options.port, options.ready_file))


if __name__ == "__main__":
    main()

"""The translation everyone writes first: OpenAI chat in front of Triton's `generate_stream`.

The naive relay with just what the other side's language asks for: chat template and tokenizer on the way
in, one token decoded and one event dumped per event on the way out.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from jinja2 import Template
from tokenizers import Tokenizer

from bench.naive_relay import SESSION, UPSTREAM, events, healthy, session

TOKENIZER = web.AppKey("tokenizer", Tokenizer)
TEMPLATE = web.AppKey("template", Template)


async def chat(request: web.Request) -> web.StreamResponse:
    """One chat completion; streamed when asked for."""
    body = await request.json()
    streaming = bool(body.get("stream"))
    tensors = _tensors(request.app, body, streaming)
    url = f"{request.app[UPSTREAM]}/v2/models/{body['model']}/generate_stream"
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    async with request.app[SESSION].post(url, json=tensors) as answer:
        answer.raise_for_status()
        if not streaming:
            ids = [token async for data in events(answer.content) for token in _ids(data)]
            return web.json_response(_completion(request.app, identity, body, tensors, ids))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for data in events(answer.content):
            for token in _ids(data):
                text = request.app[TOKENIZER].decode([token])
                await response.write(_event(identity, body["model"], {"content": text}, None))
        await response.write(_event(identity, body["model"], {}, "length") + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _tensors(app: web.Application, body: dict[str, Any], streaming: bool) -> dict[str, Any]:
    prompt = app[TEMPLATE].render(messages=body["messages"], add_generation_prompt=True)
    ids = app[TOKENIZER].encode(prompt, add_special_tokens=False).ids
    return {
        "input_ids": ids,
        "input_lengths": len(ids),
        "request_output_len": body["max_tokens"],
        "temperature": body["temperature"],
        "exclude_input_in_output": True,
        "streaming": streaming,
    }


def _ids(data: bytes) -> list[int]:
    ids = json.loads(data)["output_ids"]
    return ids if isinstance(ids, list) else [ids]


def _event(identity: str, model: str, delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": identity, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


def _completion(
    app: web.Application, identity: str, body: dict[str, Any], tensors: dict[str, Any], ids: list[int]
) -> dict[str, Any]:
    message = {"role": "assistant", "content": app[TOKENIZER].decode(ids)}
    counted = {"prompt_tokens": tensors["input_lengths"], "completion_tokens": len(ids)}
    return {
        "id": identity,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {**counted, "total_tokens": sum(counted.values())},
    }


def application(upstream: str, folder: Path) -> web.Application:
    app = web.Application(client_max_size=64 << 20)
    app[UPSTREAM] = upstream
    app[TOKENIZER] = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    app[TEMPLATE] = Template(settings["chat_template"], trim_blocks=True, lstrip_blocks=True)
    app.cleanup_ctx.append(session)
    app.router.add_get("/healthz", healthy)
    app.router.add_post("/v1/chat/completions", chat)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    options = parser.parse_args()
    uvloop.install()
    app = application(options.upstream, options.tokenizer)
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()

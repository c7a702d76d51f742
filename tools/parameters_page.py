"""Writes `docs/parameters.md` from what the code does: `python -m tools.parameters_page`.

Each field's example is parsed as a client's request and shown to every lane, with the schemas that
TensorRT-LLM ships and the vLLM backend has; whether it is carried is what the lane's own check says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine_builder.repository import schemas
from engine_builder.repository.tensors import Schema as Tensors
from engine_builder.repository.tensors import TensorSpec
from gateway.api.errors import ApiError
from gateway.api.fields import Body, ChatBody, CompletionBody, ServerFields
from gateway.api.json_body import BodyLimits
from gateway.api.parameters import PARAMETERS, Parameter
from gateway.api.requests import ApiRequest, parse_chat, parse_completion
from gateway.config import GatewayConfig
from gateway.prompts import Prompt, requests_for
from inference.errors import UnsupportedFeatureError
from inference.lanes import lane_of
from inference.schema import Schema, Tensor
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Model

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "parameters.md"
MODEL = Model(name="m", context_length=512)
LANES = ("tensorrt_llm", "ensemble", "tensorrt_llm_bls", "llmapi", "vllm")
_TOKENIZER = ROOT / "emulator" / "models" / "house-chat"
_PARSE = {"chat": parse_chat, "completions": parse_completion}
_HEAD = """# Parameters

<!-- Made by tools/parameters_page.py from gateway/api/parameters.py and the lanes' checks; do not edit. -->

What a client may send to `/v1/chat/completions` and `/v1/completions`, and which lane serves it. **yes**:
carried exactly; **no**: refused with 400 `unsupported_parameter` that names field, lane and reason; **no
effect**: taken, and of no effect on the answer. Where a model has endpoints of several lanes, one that serves
the request is found. A field that nobody knows is refused with 400 `unknown_parameter`. The lane
`openai-http` gets every field as the client sent it.

The columns hold for the tensors that TensorRT-LLM ships for each model, in every dialect, and an engine with
`guided_decoding_backend`, and for Triton's vLLM backend as it is since `structured_outputs`; a server with
fewer tensors refuses more. `bare` is the `tensorrt_llm` model, which is preferred wherever it is there.

| field | of | bare | ensemble | BLS | llmapi | vllm | |
|---|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(f"{row}\n" for row in _rows(ModelTokenizer.load(_TOKENIZER)))


def _rows(tokenizer: ModelTokenizer) -> Iterator[str]:
    for name, parameter in PARAMETERS.items():
        kinds = [
            kind for kind, body in (("chat", ChatBody), ("completions", CompletionBody)) if _knows(body, name)
        ]
        where = "chat, completions" if len(kinds) == 2 else kinds[0]
        columns = (
            ["no effect"] * len(LANES) if parameter.no_effect else _columns(name, parameter, kinds, tokenizer)
        )
        yield f"| `{name}` | {where} | {' | '.join(columns)} | {parameter.note} |"


def _knows(body: type[Body], name: str) -> bool:
    return name in body.__struct_fields__ or name in ServerFields.__struct_fields__


def _columns(name: str, parameter: Parameter, kinds: list[str], tokenizer: ModelTokenizer) -> list[str]:
    """A field of both operations is served if it is by both; the note says where they differ."""
    by_kind = [[_serves(kind, name, parameter, lane, tokenizer) for lane in LANES] for kind in kinds]
    return ["yes" if all(served) else "no" for served in zip(*by_kind, strict=True)]


def _serves(kind: str, name: str, parameter: Parameter, lane: str, tokenizer: ModelTokenizer) -> bool:
    try:
        api = _PARSE[kind](_body(kind, name, parameter), BodyLimits())
        api.refuse_unserved()
        for schema in _schemas(lane):
            _check(api, schema, tokenizer)
    except (ApiError, UnsupportedFeatureError):
        return False
    return True


def _body(kind: str, name: str, parameter: Parameter) -> bytes:
    needed: dict[str, Any] = (
        {"messages": [{"role": "user", "content": "Hi"}]} if kind == "chat" else {"prompt": "Hi"}
    )
    return msgspec.json.encode(
        {"model": "m", **needed, **parameter.beside, name: _example(kind, name, parameter)}
    )


def _example(kind: str, name: str, parameter: Parameter) -> Any:
    return 0 if (kind, name) == ("completions", "logprobs") else parameter.example


def _check(api: ApiRequest, schema: Schema, tokenizer: ModelTokenizer) -> None:
    text = "The engine of a locomotive"
    ids = tokenizer.encode(text)
    cut = api.options is not None and api.options.truncate_to is not None
    prompt = Prompt(None, ids[-1:]) if cut else Prompt(text, ids)
    for request in requests_for(api, MODEL, [prompt], tokenizer, "r", GatewayConfig(), "/v1/x"):
        lane_of(schema).check(request)


def _schemas(lane: str) -> list[Schema]:
    """As a server of each dialect declares itself."""
    if lane == "vllm":
        return [_schema(lane, schemas.VLLM)]
    if lane == "llmapi":
        return [_schema(lane, schemas.llmapi("1.x")), _schema(lane, schemas.llmapi("newest"))]
    return [_schema(lane, getattr(schemas, lane)(dialect)) for dialect in ("1.x", "0.19")]


def _schema(lane: Any, shipped: Tensors) -> Schema:
    return Schema(
        lane,
        "m",
        inputs=_declared(shipped.inputs),
        outputs=_declared(shipped.outputs),
        decoupled=True,
        max_batch_size=8,
        guided_decoding=True,
    )


def _declared(side: Iterable[TensorSpec]) -> dict[str, Tensor]:
    return {spec.name: Tensor(spec.dtype.replace("STRING", "BYTES"), (-1, *spec.dims)) for spec in side}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

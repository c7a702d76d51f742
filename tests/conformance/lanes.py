"""Lanes: a stack that has every lane, and which model stands for which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2 as httpx
import yaml

from emulator.engine import ModelConfig
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.manifests import to_yaml
from tests.emulator.adapters import write_adapter
from tests.stack.dialects import CHATS, WEIGHTS, apply, dialect_server, openai_upstream, ready_models
from tests.stack.stack import ROOT, Stack, wait_until

MODELS = ROOT / "emulator" / "models"


class Lane(NamedTuple):
    name: str
    """Column of the page."""
    model: str
    weights: str
    """Whose tokenizer counts."""
    adapter: str | None = None
    """LoRA adapter of the model, by its own name; None where the stack has none for this lane."""


LANES = (
    Lane("tensorrt_llm", "house-chat", "house-chat", "sailor"),
    Lane("tensorrt_llm 0.19", "bare-019", "depot-chat", "bare-parrot"),
    Lane("ensemble", "yard-chat", "house-chat", "yard-sailor"),
    Lane("BLS", "kiosk-chat", "house-chat", "kiosk-sailor"),
    Lane("BLS, accumulating", "bls-accumulating", "depot-chat", "bls-parrot"),
    Lane("llmapi", "depot-chat", "depot-chat", "depot-parrot"),
    Lane("llmapi 1.x", "llmapi-1x", "depot-chat", "llmapi-parrot"),
    Lane("vllm", "siding-chat", "depot-chat", "siding-parrot"),
    Lane("openai-http", "upstream-chat", "depot-chat"),
)
UPSTREAM = ("upstream-chat", "upstream-vectors")
EMBEDDERS = (
    Lane("encoder, token ids", "house-vectors", "house-chat"),
    Lane("encoder, text", "text-vectors", "depot-chat"),
    Lane("vllm", "vllm-vectors", "depot-chat"),
    Lane("openai-http", "upstream-vectors", "depot-chat"),
)


@contextmanager
def every_lane(folder: Path) -> Iterator[Stack]:
    """A running stack whose models are those of `LANES` and `EMBEDDERS`, with their adapters."""
    with (
        Stack.start(folder) as stack,
        dialect_server(folder / "dialects") as triton,
        openai_upstream(
            folder / "upstream.log", **{"upstream-chat": WEIGHTS, "upstream-vectors": WEIGHTS}
        ) as upstream,
        httpx.Client(base_url=stack.origin, timeout=30) as client,
    ):
        objects = [*_chats(triton, upstream), *_vectors(triton, upstream)]
        apply(client, stack, to_yaml(objects))
        wanted = {lane.model for lane in (*LANES, *EMBEDDERS)}
        wait_until(lambda: wanted <= ready_models(client, stack), 30, "every endpoint is ready")
        apply(client, stack, yaml.safe_dump_all(_adapters(folder)))
        named = {f"{lane.model}+{lane.adapter}" for lane in LANES if lane.adapter is not None}
        listed = stack.client()
        wait_until(lambda: named <= {model.id for model in listed.models.list()}, 10, "adapters are served")
        yield stack


def _chats(triton: ServerRef, upstream: ServerRef) -> Iterator[Model | Deployment]:
    for name, (target, lane) in {**CHATS, "upstream-chat": ("upstream-chat", "openai-http")}.items():
        relayed = lane == "openai-http"
        yield Model(
            name=name,
            context_length=1024,
            tokenizer=None if relayed else str(WEIGHTS),
            tool_parser=None if relayed else "hermes",
        )
        yield _deployment(name, target, lane, upstream if relayed else triton)


def _vectors(triton: ServerRef, upstream: ServerRef) -> Iterator[Model | Deployment]:
    targets = {
        "text-vectors": ("text_vectors", "text_encoder", triton),
        "vllm-vectors": ("vllm_vectors", "vllm", triton),
        "upstream-vectors": ("upstream-vectors", "openai-http", upstream),
    }
    for name, (target, lane, server) in targets.items():
        yield Model(name=name, context_length=512, tokenizer=str(WEIGHTS), modality="embedding")
        yield _deployment(name, target, lane, server)


def _deployment(name: str, target: str, lane: str, server: ServerRef) -> Deployment:
    blocks = {"tokens_per_block": 32} if lane == "llmapi" else {}
    fields = {"name": name, "model": name, "lane": lane, "target": target, "servers": (server,), **blocks}
    return Deployment.model_validate(fields)


def _adapters(folder: Path) -> Iterator[dict[str, str | None]]:
    """Those that the stack does not bring itself."""
    parrot = write_adapter(folder / "parrot", ModelConfig.load(MODELS / "depot-chat"), seed=1, rank=4)
    for lane in LANES[1:]:
        if lane.adapter is not None:
            sailor = lane.weights == "house-chat"
            path = MODELS / "adapters" / "house-chat-sailor" if sailor else parrot
            yield {"kind": "Adapter", "name": lane.adapter, "model": lane.model, "path": str(path)}

"""Embedding models in a real Triton: what comes out depends neither on company nor on padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.engine import Weights
from emulator.engine.encoder import Encoder
from emulator.engine.tokenizer import EngineTokenizer
from tests.emulator.triton.server import Server

TEXTS = ["the engine house", "steam", "coal and iron, day and night, day and night"]


async def infer(server: Server, model: str, inputs: list[dict[str, Any]]) -> tuple[int, Any]:
    return await server.post(f"/v2/models/{model}/infer", {"inputs": inputs})


def tensor(name: str, datatype: str, rows: list[list[Any]]) -> dict[str, Any]:
    data = [value for row in rows for value in row]
    return {"name": name, "datatype": datatype, "shape": [len(rows), len(rows[0])], "data": data}


def id_tensors(rows: list[list[int]], datatype: str) -> list[dict[str, Any]]:
    longest = max(map(len, rows))
    ids = [row + [9] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    kinds = [[0] * longest for _ in rows]
    named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    return [tensor(name, datatype, values) for name, values in named.items()]


@pytest.fixture
def expected(model_dir: Path) -> tuple[list[list[int]], Any]:
    """Ids of the texts, and each one's vector, computed alone."""
    rows = [EngineTokenizer(model_dir).encode(text) for text in TEXTS]
    encoder = Encoder(Weights.load(model_dir))
    return rows, np.concatenate([encoder.embed([row]) for row in rows])


async def test_ids_to_one_vector(server: Server, expected: tuple[list[list[int]], Any]) -> None:
    rows, vectors = expected
    _, answer = await infer(server, "encoder", id_tensors(rows, "INT64"))
    got = np.array(answer["outputs"][0]["data"]).reshape(answer["outputs"][0]["shape"])
    assert got == pytest.approx(vectors, abs=1e-5)
    assert np.linalg.norm(got, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


async def test_ids_to_a_vector_per_token(server: Server, expected: tuple[list[list[int]], Any]) -> None:
    rows, vectors = expected
    _, answer = await infer(server, "token_encoder", id_tensors(rows, "INT32"))
    states = np.array(answer["outputs"][0]["data"]).reshape(answer["outputs"][0]["shape"])
    for row, state, vector in zip(rows, states, vectors, strict=True):
        mean = state[: len(row)].mean(axis=0)
        assert mean / np.linalg.norm(mean) == pytest.approx(vector, abs=1e-5)


async def test_text_to_one_vector(server: Server, expected: tuple[list[list[int]], Any]) -> None:
    _, answer = await infer(server, "text_encoder", [tensor("text", "BYTES", [[text] for text in TEXTS])])
    assert np.array(answer["outputs"][0]["data"]).reshape(3, -1) == pytest.approx(expected[1], abs=1e-5)


async def test_a_wrong_input_is_refused_by_name(server: Server) -> None:
    _, answer = await infer(server, "encoder", id_tensors([[5, 99999]], "INT64"))
    assert "input_ids must be between" in answer["error"]
    _, answer = await infer(server, "encoder", id_tensors([[5] * 513], "INT64"))
    assert "exceeds maximum input length (512)" in answer["error"]

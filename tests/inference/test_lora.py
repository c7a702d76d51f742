"""PEFT folders to TensorRT-LLM's tensors: layout, scale, data types, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import AdapterError
from inference.lora import CONFIG_FILE, WEIGHTS_FILE, load_adapter, read_safetensors

SHIPPED = Path(__file__).parents[2] / "emulator" / "models" / "adapters"
STEM = "base_model.model.model.layers.{}.{}.lora_{}.weight"
TYPES = {"float16": "F16", "float32": "F32", "uint16": "BF16", "int8": "I8"}


def write(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    """A folder with these tensors, each as its NumPy type; uint16 stands for bfloat16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in tensors.items():
        place = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": array.shape, "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / CONFIG_FILE).write_text(json.dumps({"r": 2, "lora_alpha": 8, **config}))
    return folder


def pair(module: str, inputs: int, outputs: int, layer: int = 0, rank: int = 2) -> dict[str, Any]:
    """lora_A of 1, 2, 3 … and lora_B of 0.5, 1, 1.5 …, in single precision."""
    inward = np.arange(1, rank * inputs + 1, dtype=np.float32).reshape(rank, inputs)
    outward = np.arange(1, rank * outputs + 1, dtype=np.float32).reshape(outputs, rank) / 2
    return {STEM.format(layer, module, "A"): inward, STEM.format(layer, module, "B"): outward}


def test_a_row_is_lora_a_then_scaled_lora_b_then_zeros(tmp_path: Path) -> None:
    tensors = pair("self_attn.q_proj", 3, 2) | pair("mlp.down_proj", 4, 3, layer=1)
    adapter = load_adapter(write(tmp_path, tensors))
    assert adapter.config.tolist() == [[1, 0, 2], [6, 1, 2]]
    assert (adapter.weights.dtype, adapter.config.dtype) == (np.float16, np.int32)
    scaled = [4 * value / 2 for value in range(1, 5)]  # alpha / rank is 4
    assert adapter.weights[0].tolist() == [1, 2, 3, 4, 5, 6, *scaled, 0, 0, 0, 0]
    assert adapter.weights.shape == (2, 14)


def test_rank_stabilised_adapters_scale_by_the_root(tmp_path: Path) -> None:
    plain = load_adapter(write(tmp_path, pair("self_attn.v_proj", 2, 2))).weights
    rooted = load_adapter(write(tmp_path, pair("self_attn.v_proj", 2, 2), use_rslora=True)).weights
    assert rooted[0, 4:] == pytest.approx(plain[0, 4:] * np.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_other_data_types_carry_the_same_numbers(tmp_path: Path, kind: str) -> None:
    tensors = pair("mlp.up_proj", 3, 2)
    expected = load_adapter(write(tmp_path, tensors)).weights
    if kind == "float16":
        changed: dict[str, Any] = {name: array.astype(np.float16) for name, array in tensors.items()}
    else:
        changed = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in tensors.items()}
    assert np.array_equal(load_adapter(write(tmp_path, changed)).weights, expected)


def test_modules_have_the_ids_of_tensorrt_llm(tmp_path: Path) -> None:
    """The gate is `mlp_h_to_4h`, and what is called up_proj is `mlp_gate`."""
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    names = [*attention, "gate_proj", "down_proj", "up_proj"]
    tensors: dict[str, Any] = {}
    for name in names:
        tensors |= pair(f"{'self_attn' if name in attention else 'mlp'}.{name}", 2, 2)
    ids = {row[0] for row in load_adapter(write(tmp_path, tensors)).config.tolist()}
    assert ids == {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("name", ["house-chat-sailor", "house-chat-butler"])
def test_shipped_adapters_are_small_and_whole(name: str) -> None:
    adapter = load_adapter(SHIPPED / name)
    assert adapter.weights.shape[0] == 4 * 7
    assert np.isfinite(adapter.weights).all()
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 200 * 1024


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "uses use_dora"),
        ({"rank_pattern": {"q_proj": 4}}, "uses rank_pattern"),
        ({"peft_type": "IA3"}, "describes no LoRA adapter"),
        ({"lora_alpha": "8"}, "must give r and lora_alpha as numbers"),
    ],
)
def test_what_the_tensors_cannot_carry_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        load_adapter(write(tmp_path, pair("self_attn.q_proj", 2, 2), **config))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensors"),
        ({STEM.format(0, "self_attn.q_proj", "A"): np.ones((2, 2), np.float32)}, "do not fit together"),
        (pair("self_attn.rotary", 2, 2), "belongs to no module that is supported"),
        ({"lm_head.weight": np.ones((2, 2), np.float32)}, "lm_head.weight belongs to no module"),
        ({STEM.format(0, "self_attn.q_proj", "A"): np.ones((2, 2), np.int8)}, "data type I8 is none of"),
    ],
)
def test_tensors_without_a_place_are_refused_by_name(
    tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        load_adapter(write(tmp_path, tensors))


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{"])
def test_files_that_are_no_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes(data)
    with pytest.raises(AdapterError, match=WEIGHTS_FILE):
        read_safetensors(tmp_path / WEIGHTS_FILE)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=str(tmp_path / "none")):
        load_adapter(tmp_path / "none")

"""A checkpoint is known by its content: names, weights, tokenizer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pytest
from pydantic import ValidationError

from engine_builder.checkpoint import Checkpoint, DigestCache
from engine_builder.errors import CheckpointError
from engine_builder.shape import Shape
from model_registry.engine_specs import Workload

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def folder(at: Path, weights: bytes = b"weights") -> Path:
    at.mkdir()
    (at / "config.json").write_text(json.dumps(LLAMA_8B))
    (at / "model.safetensors").write_bytes(weights)
    (at / "tokenizer.json").write_text("{}")
    (at / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return at


def test_the_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = Checkpoint.open(str(folder(tmp_path / "a")))
    second = Checkpoint.open(str(folder(tmp_path / "b")))
    assert first.digest() == second.digest()


def test_other_weights_under_the_same_path_have_another_digest(tmp_path: Path) -> None:
    """TensorRT-LLM's own cache does not notice; with remembered digests, too."""
    cache = DigestCache(tmp_path / "digests.json")
    at = folder(tmp_path / "a")
    before = Checkpoint.open(str(at)).digest(cache)
    (at / "model.safetensors").write_bytes(b"WEIGHTS")  # of the same length
    os.utime(at / "model.safetensors", (1, 1))
    assert Checkpoint.open(str(at)).digest(cache) != before


def test_remembered_digests_are_read_again(tmp_path: Path) -> None:
    at = folder(tmp_path / "a")
    path = tmp_path / "cache" / "digests.json"
    known = Checkpoint.open(str(at)).digest(DigestCache(path))
    kept = json.loads(path.read_text())
    assert len(kept) == 4
    path.write_text(json.dumps(dict.fromkeys(kept, "0" * 64)))
    assert Checkpoint.open(str(at)).digest(DigestCache(path)) != known
    path.write_text("not json")
    assert Checkpoint.open(str(at)).digest(DigestCache(path)) == known


def test_a_file_more_is_another_checkpoint_with_the_same_tokenizer(tmp_path: Path) -> None:
    at = folder(tmp_path / "a")
    before = Checkpoint.open(str(at))
    (at / "generation_config.json").write_text("{}")
    after = Checkpoint.open(str(at))
    assert after.digest() != before.digest()
    assert after.tokenizer_digest() == before.tokenizer_digest()


def test_progress_tells_bytes(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = Checkpoint.open(str(folder(tmp_path / "a")))
    found.digest(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (sum(found.files.values()), sum(found.files.values()))


def test_a_url_is_read_as_a_folder_is(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    at = folder(tmp_path / "a")
    for file in at.iterdir():
        memory.pipe(f"/checkpoints/a/{file.name}", file.read_bytes())
    try:
        assert Checkpoint.open("memory://checkpoints/a").digest() == Checkpoint.open(str(at)).digest()
        assert Checkpoint.open("memory://checkpoints/a").template() == "{{ messages }}"
    finally:
        memory.rm("/checkpoints", recursive=True)


def test_templates_are_found_where_checkpoints_have_them(tmp_path: Path) -> None:
    at = folder(tmp_path / "a")
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (at / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert Checkpoint.open(str(at)).template() == "yes"
    (at / "chat_template.jinja").write_text("newest")
    assert Checkpoint.open(str(at)).template() == "newest"
    (at / "chat_template.jinja").unlink()
    (at / "tokenizer_config.json").write_text("{}")
    assert Checkpoint.open(str(at)).template_digest() is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"chat_template": [{"name": "default"}]}', '{"chat_template": [1]}']
)
def test_a_tokenizer_config_that_is_broken_is_named(tmp_path: Path, text: str) -> None:
    at = folder(tmp_path / "a")
    (at / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json cannot be understood"):
        Checkpoint.open(str(at)).template()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "does not exist or is empty"),
        ({"model.safetensors": "x"}, "holds no config.json"),
        ({"config.json": "{"}, "not JSON"),
        ({"config.json": "[]"}, "not a JSON object"),
        ({"config.json": '{"hidden_size": 5}'}, "num_hidden_layers, num_attention_heads"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        Checkpoint.open(str(tmp_path))


def test_counts_of_parameters_are_those_of_the_contract_sheet() -> None:
    """§8: Llama-3-8B and -70B."""
    small = Shape.of(LLAMA_8B)
    assert (small.linear, small.embedding, small.norms) == (6_979_321_856, 525_336_576, 266_240)
    assert small.parameters == 8_030_261_248
    large = Shape.of(
        LLAMA_8B
        | {
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
        }
    )
    assert (large.linear, large.embedding, large.norms) == (68_451_041_280, 1_050_673_152, 1_318_912)
    assert large.parameters == 70_553_706_496


def test_of_a_mixture_every_token_computes_with_its_experts_only() -> None:
    mixtral = Shape.of(
        LLAMA_8B | {"num_local_experts": 8, "num_experts_per_tok": 2, "architectures": ["MixtralForCausalLM"]}
    )
    assert mixtral.linear - 32 * 4096 * 8 == 32 * (mixtral.attention + 8 * mixtral.expert)
    assert mixtral.computed == 32 * (mixtral.attention + 2 * mixtral.expert) + mixtral.embedding


def test_the_text_part_of_a_multimodal_config_counts() -> None:
    assert Shape.of({"model_type": "mllama", "text_config": LLAMA_8B}) == Shape.of(LLAMA_8B)


@pytest.mark.parametrize(
    ("field", "value"), [("architectures", 5), ("text_config", []), ("num_experts", -3), ("num_experts", "x")]
)
def test_a_field_of_another_type_is_named(field: str, value: object) -> None:
    sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    with pytest.raises(CheckpointError, match=field):
        Shape.of({**dict.fromkeys(sizes, 8), field: value})


@pytest.mark.parametrize(
    ("text", "named"), [("[" * 100_000, "not JSON"), ('{"quantization_config": 7}', "quantization_config")]
)
def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=named):
        Checkpoint.open(str(tmp_path))


@pytest.mark.parametrize("field", ["ttft_s", "itl_s", "requests_per_s"])
def test_a_workload_is_finite(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Workload.model_validate({field: float("inf")})

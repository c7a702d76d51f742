"""A packaged engine holds all that is needed, says what it is, and is loadable wherever it is fetched to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import PackageError, SignatureError
from engine_builder.package import Signer, Trust, fetch, package, read_manifest, verify
from engine_builder.package.signing import key_id, public_path
from engine_builder.repository.engine_models import engine_parameters
from engine_builder.repository.lookahead import Lookahead, sizes_for
from engine_builder.repository.model_files import from_installation
from engine_builder.steps.launch_files import llm_arguments
from model_registry.engine_specs import Lora, Speculative
from model_registry.triton_queue import TritonQueue
from tests.engine_builder.packages import (
    BUILT_AT,
    CHAT_MODEL,
    SIGNER,
    emulated_package,
    real_package,
    spec,
    write_engine,
    write_launch,
)

TRUST = Trust.of(SIGNER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_package(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def fetched(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("served") / "engine"
    fetch(str(folder), destination, TRUST, served_at="/models/depot", gpu_device_ids="0,1")
    return destination


def config_of(folder: Path, model: str) -> model_config_pb2.ModelConfig:
    text = (folder / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_manifest_says_what_the_engine_is_and_lists_every_file(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest.name == folder.name == f"depot-{manifest.engine_digest[:12]}"
    assert (manifest.lane, manifest.runtime, manifest.version) == ("trt-engine", "tensorrt-llm", "1.2.1")
    assert manifest.image == "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
    assert (manifest.gpu_class, manifest.architecture, manifest.gpus) == ("h100-sxm", "sm90", 2)
    checkpoint = Checkpoint.open(str(CHAT_MODEL))
    assert manifest.checkpoint_digest == checkpoint.digest()
    assert manifest.tokenizer_digest == checkpoint.tokenizer_digest()
    assert manifest.template_digest == checkpoint.template_digest()
    assert (manifest.steps, manifest.built_at) == ({"compile": "c" * 64}, BUILT_AT)
    assert manifest.features == ("stream", "stop", "seed", "logprobs", "cancel", "guided", "lora")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*manifest.files, "manifest.json", "manifest.sig"}
    assert {"engine/config.json", "engine/rank0.engine", "engine/rank1.engine"} <= there
    assert os.uname().nodename not in (folder / "manifest.json").read_text()


def test_parameters_come_from_the_spec() -> None:
    plain = engine_parameters(spec(kv_fraction=0.8, scheduler_policy="max_utilization"), TritonQueue(), False)
    assert plain["batch_scheduler_policy"] == "max_utilization"
    assert plain["kv_cache_free_gpu_mem_fraction"] == "0.8"
    assert plain["decoding_mode"] == "top_k_top_p"
    assert "guided_decoding_backend" not in plain
    assert not [name for name in plain if name.startswith("lora")]
    beams = engine_parameters(spec(max_beam_width=4, lora=Lora(max_rank=4)), TritonQueue(), True)
    assert (beams["decoding_mode"], beams["lora_cache_max_adapter_size"]) == ("beam_search", "4")
    assert beams["lora_cache_optimal_adapter_size"] == "4"
    int8 = engine_parameters(spec(kv_cache="int8"), TritonQueue(), False)
    assert (int8["enable_kv_cache_reuse"], int8["enable_chunked_context"]) == ("false", "false")
    lookahead = Speculative(mode="lookahead_decoding", max_draft_len=7)
    guessing = engine_parameters(spec(speculative=lookahead), TritonQueue(), False)
    assert guessing["decoding_mode"] == "lookahead"
    assert [guessing[f"lookahead_{size}_size"] for size in ("window", "ngram", "verification_set")] == [
        "2",
        "3",
        "2",
    ]
    served = llm_arguments(spec(lane="llmapi", speculative=lookahead))["speculative_config"]
    sizes = [served[f"max_{size}_size"] for size in ("window", "ngram", "verification_set")]
    assert Lookahead(*sizes).draft_tokens == 7


@pytest.mark.parametrize("draft_tokens", [1, 2, 3, 7, 16, 39, 100])
def test_lookahead_takes_exactly_the_draft_tokens_that_the_engine_has(draft_tokens: int) -> None:
    assert sizes_for(draft_tokens).draft_tokens == draft_tokens
    assert min(sizes_for(draft_tokens)) >= 1


def test_a_fetched_repository_has_the_servers_paths_and_the_published_one_none(
    folder: Path, fetched: Path
) -> None:
    published = config_of(folder / "repository", "tensorrt_llm")
    assert published.parameters["gpt_model_path"].string_value == "${engine_root}/engine"
    served = config_of(fetched / "serve/repository", "tensorrt_llm")
    assert served.backend == "tensorrtllm"
    assert served.parameters["gpt_model_path"].string_value == "/models/depot/engine"
    assert served.parameters["gpu_device_ids"].string_value == "0,1"
    before = config_of(fetched / "serve/repository", "preprocessing")
    assert before.parameters["tokenizer_dir"].string_value == "/models/depot/tokenizer"
    assert "${engine_root}" not in "".join(
        path.read_text() for path in (fetched / "serve").rglob("*") if path.is_file()
    )
    assert verify(fetched, TRUST)[1] == []


def test_the_models_have_the_python_files_of_the_release(fetched: Path) -> None:
    repository = fetched / "serve/repository"
    assert {path.name for path in repository.iterdir()} == {
        "tensorrt_llm",
        "preprocessing",
        "postprocessing",
        "ensemble",
        "tensorrt_llm_bls",
    }
    assert "preprocessing/1/model.py" in (repository / "preprocessing/1/model.py").read_text()
    assert (repository / "tensorrt_llm_bls/1/lib/decode.py").is_file()
    assert all((model / "1").is_dir() for model in repository.iterdir())


def test_several_gpus_are_launched_by_leader_and_by_orchestrator(tmp_path: Path) -> None:
    """70B on four GPUs: one Triton a rank, of which the first serves; or one that spawns its workers."""
    package = real_package(tmp_path, name="llama-70b", tensor_parallel=4)
    fetch(str(package), tmp_path / "engine", TRUST, served_at="/models/llama-70b")
    leader = (tmp_path / "engine/serve/launch/leader.sh").read_text()
    assert leader.count("tritonserver ") == leader.count("-n \\\n") == 4
    assert leader.count("--load-model=tensorrt_llm") == leader.count("--model-control-mode=explicit") == 3
    assert "--model-repository=/models/llama-70b/serve/repository" in leader
    for rank in range(4):
        assert f"shm-region-prefix-name=prefix{rank}_" in leader
    orchestrator = (tmp_path / "engine/serve/launch/orchestrator.sh").read_text()
    assert "TRTLLM_ORCHESTRATOR=1" in orchestrator
    assert "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES=1" in orchestrator
    assert orchestrator.count("tritonserver ") == 1
    assert os.access(tmp_path / "engine/serve/launch/leader.sh", os.X_OK)


def test_the_llm_api_gets_the_settings_of_its_launch_step_with_the_servers_paths(tmp_path: Path) -> None:
    package = real_package(tmp_path, lane="llmapi", lora=None)
    fetch(str(package), tmp_path / "engine", TRUST, served_at="/m", checkpoint="/checkpoints/depot")
    settings = yaml.safe_load((tmp_path / "engine/serve/repository/tensorrt_llm/1/model.yaml").read_text())
    assert (settings["model"], settings["tokenizer"]) == ("/checkpoints/depot", "/m/tokenizer")
    assert settings["triton_config"]["decoupled"] is True
    assert settings["max_seq_len"] == 512
    assert read_manifest(package).own_weights is False


def test_openai_servers_get_a_command_and_vllm_a_model_for_triton_besides(tmp_path: Path) -> None:
    for lane in ("trtllm-serve", "vllm"):
        package = real_package(tmp_path / lane, lane=lane, lora=None)
        fetch(str(package), tmp_path / lane / "engine", TRUST, served_at="/m", checkpoint="/c")
        launch = tmp_path / lane / "engine/serve/launch"
        assert "/m/serve/launch/serve.yaml" in (launch / "serve.sh").read_text()
        assert (launch / "serve.yaml").exists() == (lane == "trtllm-serve")
    settings = json.loads((tmp_path / "vllm/engine/serve/repository/vllm/1/model.json").read_text())
    assert (settings["model"], settings["max_num_seqs"]) == ("/c", 8)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(str(CHAT_MODEL))
    for wanted, outputs, words in (
        (spec(precision=None), {}, "leaves precision open"),
        (spec(), {}, "no output of the step 'compile'"),
        (spec(lane="llmapi"), {}, "no output of the step 'launch'"),
    ):
        with pytest.raises(PackageError, match=words):
            package(wanted, checkpoint, outputs, "d" * 64, "tensorrt-llm", tmp_path / "packages", SIGNER)
    for all_models, words in ((None, "wants Python files"), (tmp_path, "has no Python files")):
        with pytest.raises(PackageError, match=words):
            package(
                spec(),
                checkpoint,
                {"compile": CHAT_MODEL},
                "d" * 64,
                "tensorrt-llm",
                tmp_path / "packages",
                SIGNER,
                finish=from_installation(all_models),
            )
    assert list((tmp_path / "packages").iterdir()) == []


def test_the_same_engine_is_packaged_the_same(tmp_path: Path) -> None:
    one, other = (real_package(tmp_path / name) for name in ("one", "other"))
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_a_quantized_checkpoint_goes_along(tmp_path: Path) -> None:
    quantized = tmp_path / "quantized"
    shutil.copytree(CHAT_MODEL, quantized)
    outputs = {"quantize": quantized, "launch": write_launch(tmp_path / "launch")}
    wanted = spec(lane="llmapi", precision="fp8")
    checkpoint = Checkpoint.open(str(CHAT_MODEL))
    made = package(wanted, checkpoint, outputs, "d" * 64, "tensorrt-llm", tmp_path / "p", SIGNER)
    assert read_manifest(made).own_weights
    assert "${engine_root}/checkpoint" in (made / "repository/tensorrt_llm/1/model.yaml").read_text()
    assert (made / "checkpoint/weights.npz").is_file()


def test_emulated_engines_are_marked_in_manifest_and_models(tmp_path: Path) -> None:
    made = emulated_package(tmp_path)
    assert read_manifest(made).runtime == "emulated"
    bare = config_of(made / "repository", "tensorrt_llm")
    assert (bare.backend, bare.parameters["gpt_model_path"].string_value) == (
        "python",
        "${engine_root}/engine",
    )
    limits = json.loads(bare.parameters["emulator_limits"].string_value)
    assert (limits["max_batch_size"], limits["max_seq_len"], limits["max_lora_rank"]) == (8, 512, 8)


def test_every_change_is_found_and_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "engine/rank0.engine").write_bytes(b"engine of rank 9")
    (copy / "tokenizer/tokenizer.json").unlink()
    (copy / "repository/tensorrt_llm/1").mkdir(exist_ok=True)
    (copy / "repository/tensorrt_llm/1/extra.py").write_text("x")
    _, flaws = verify(copy, TRUST)
    assert {tuple(flaw) for flaw in flaws} == {
        ("engine/rank0.engine", "changed"),
        ("tokenizer/tokenizer.json", "missing"),
        ("repository/tensorrt_llm/1/extra.py", "not part of the engine"),
    }
    with pytest.raises(PackageError, match=r"rank0\.engine \(changed\)"):
        fetch(str(copy), tmp_path / "engine", TRUST)
    assert not (tmp_path / "engine").exists()


def test_only_trusted_signatures_count(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with pytest.raises(SignatureError, match="which is not trusted"):
        verify(copy, Trust.of(Signer.generate()))
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace("h100-sxm", "h200-sxm"))
    with pytest.raises(SignatureError, match="changed after it was signed"):
        verify(copy, TRUST)
    (copy / "manifest.json").write_text(text)
    (copy / "manifest.sig").unlink()
    with pytest.raises(SignatureError, match="not signed"):
        verify(copy, TRUST)
    assert verify(copy, Trust(allow_unsigned=True))[1] == []


def test_keys_are_kept_for_their_owner_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "own.pem"
    first = Signer.of(path)
    assert key_id(Signer.of(path).public) == key_id(first.public)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SignatureError, match="exists"):
        Signer.generate().save(path)
    trust = Trust.of(files=[public_path(path)])
    assert trust.check(b"data", first.sign(b"data")) == key_id(first.public)
    (tmp_path / "no.pem").write_text("no key")
    with pytest.raises(SignatureError, match="cannot be read as a private key"):
        Signer.load(tmp_path / "no.pem")


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(PackageError, match="has format 2, this release reads up to 1"):
        read_manifest(tmp_path)
    write_engine(tmp_path / "engine")
    with pytest.raises(PackageError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path / "engine")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("served_at", "/m/$(id)"),
        ("served_at", '/m" }'),
        ("checkpoint", "/c\ntouch x"),
        ("gpu_device_ids", '0" }'),
    ],
)
def test_places_that_would_end_a_text_are_refused(
    folder: Path, tmp_path: Path, field: str, value: str
) -> None:
    with pytest.raises(PackageError, match=field):
        fetch(str(folder), tmp_path / "engine", TRUST, **{field: value})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_place_is_one_word_of_a_launch_script(folder: Path, tmp_path: Path) -> None:
    fetch(str(folder), tmp_path / "engine", TRUST, served_at="/m; touch x")
    for script in (tmp_path / "engine" / "serve" / "launch").glob("*.sh"):
        assert "--model-repository='/m; touch x'/serve/repository" in script.read_text("utf-8")


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a//b", "./a"])
def test_a_manifest_names_no_file_outside_of_its_folder(folder: Path, tmp_path: Path, path: str) -> None:
    document = json.loads((folder / "manifest.json").read_bytes())
    document["files"][path] = {"sha256": "0" * 64, "size": 0}
    (tmp_path / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(PackageError, match="no path below the engine's folder"):
        read_manifest(tmp_path)


def test_a_link_to_a_folder_brings_nothing_in_unseen(folder: Path, tmp_path: Path) -> None:
    """A copy would hold what it leads to."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "evil.py").write_text("1", encoding="utf-8")
    (copy / "engine" / "more").symlink_to(tmp_path / "elsewhere")
    _, flaws = verify(copy, TRUST)
    assert [(flaw.path, flaw.what) for flaw in flaws] == [("engine/more", "a link")]


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_destination_that_is_a_file_is_named(folder: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    with pytest.raises(PackageError, match="cannot be a folder"):
        fetch(str(folder), tmp_path / where, TRUST)
    assert (tmp_path / "file").read_text("utf-8") == "kept"

"""Engines: four CPU engines of one Triton that keep a made-up GPU's time, and the same engine for replay.

They compute very little and sleep for the rest, so that two cores are enough for a whole fleet. Every answer
is one word again and again, so that each token is text at once and a missing one shows.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from emulator.engine import EngineLimits, ModelConfig, Weights
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.repository import EngineSpec, TrtEngineModels, build_emulator_repository
from enginehouse.local.model_servers import weights_folder
from router.replay.engine import EngineCard

ENGINES = 4
TOKENIZER = "depot-chat"
CONTEXT_LENGTH = 2048
BLOCK_TOKENS = 32
WORD = " the"
CARD = EngineCard(
    slots=32,
    chunk_tokens=256,
    kv_tokens=750 * BLOCK_TOKENS,
    step_floor_s=0.04,
    token_s=1 / 1600,
    attention_s=0,
    resident_s=0,
    overhead_s=0,
)
"""Steps of 40 ms at least, 1,600 prompt tokens a second: slow, so that few tokens make a load."""
STATS_PERIOD_MS = 10


def repository(folder: Path) -> list[str]:
    """Writes the engines' weights and a model repository; the names of the models."""
    weights, pacing = folder / "weights", folder / "pacing.json"
    _weights(weights)
    pacing.write_text(
        json.dumps(
            {
                "name": "live-router",
                "source": "made up",
                "prefill_tokens_per_s": 1 / CARD.token_s,
                "base_ms": 1000 * CARD.step_floor_s,
            }
        )
    )
    limits = EngineLimits(
        max_batch_size=CARD.slots,
        max_num_tokens=CARD.chunk_tokens,
        max_seq_len=CONTEXT_LENGTH,
        max_input_len=CONTEXT_LENGTH - 1,
        tokens_per_block=BLOCK_TOKENS,
        kv_blocks=CARD.kv_tokens // BLOCK_TOKENS,
    )
    engines = [
        TrtEngineModels(
            EngineSpec(
                weights,
                limits,
                pacing=str(pacing),
                fault_file=fault_file(folder, number),
                stats_check_period_ms=STATS_PERIOD_MS,
            ),
            name=engine_name(number),
        )
        for number in range(ENGINES)
    ]
    return build_emulator_repository(folder / "repository", engines)


def engine_name(number: int) -> str:
    """Of the engine's model on its server."""
    return f"engine-{number}"


def fault_file(folder: Path, number: int) -> Path:
    """Where the engine looks for a fault."""
    return folder / f"fault-{number}.json"


def _weights(folder: Path) -> None:
    """A model whose likeliest token is always `WORD`: only its embedding's first number counts."""
    source = weights_folder(TOKENIZER)
    config = replace(
        ModelConfig.load(source),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=CONTEXT_LENGTH,
    )
    weights = Weights.random(config, seed=1)
    word, *rest = EngineTokenizer(source).encode(WORD, add_special_tokens=False)
    assert not rest, f"{WORD!r} is more than one token"
    for name, array in weights.arrays.items():
        if name.endswith(("output", "down")):
            array[:] = 0
    weights.embed[:, 0] = 1
    weights.embed[word, 0] = 2
    weights.final_norm[1:] = 0
    weights.save(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)

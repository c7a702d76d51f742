"""What the scripts take that convert a model together with the heads or the network that guesses for it."""

from __future__ import annotations

from engine_builder.contract.options import Option, Table, choice, each, fraction, number, switch, text

_SOURCE = "examples/{}/convert_checkpoint.py of NVIDIA/TensorRT-LLM, {}"
_DTYPE = choice("--dtype", "float32 bfloat16 float16", "float16", note="here without `auto`")
_PLACES = (
    text("--output_dir", "tllm_checkpoint"),
    number("--tp_size", 1),
    number("--workers", 1),
    switch("--use_parallel_embedding"),
    number("--embedding_sharding_dim", 0, choices=("0", "1")),
    choice("--storage-type", "fp32 fp16", "fp32", aliases=("-t",)),
)
_WITH_HEADS: tuple[Option, ...] = (
    *each(text, "--model_dir --meta_ckpt_dir"),
    *_PLACES,
    _DTYPE,
    number("--pp_size", 1),
    *each(switch, "--use_weight_only --per_channel --per_token --int8_kv_cache --per_group --load_by_shard"),
    choice("--weight_only_precision", "int8 int4 int4_gptq", "int8"),
    text("--calib_dataset", "ccdv/cnn_dailymail", note="how much of it is not to be chosen"),
    fraction("--smoothquant", aliases=("-sq",)),
    number("--group_size", 128),
    text("--dataset-cache-dir"),
    *each(switch, "--load-model-on-cpu --convert-model-on-cpu"),
)

MEDUSA = Table(
    "medusa/convert_checkpoint.py",
    "not in the sheet",
    _SOURCE.format("medusa", "063e02f7"),
    (
        *_WITH_HEADS,
        number("--num_medusa_heads", 4),
        number("--num_medusa_layers", 1),
        number("--max_medusa_token_len", 63),
        text("--medusa_hidden_act", "silu"),
        text("--medusa_model_dir"),
    ),
)
EAGLE = Table(
    "eagle/convert_checkpoint.py",
    "not in the sheet",
    _SOURCE.format("eagle", "04a2cacb"),
    (
        *_WITH_HEADS,
        text("--eagle_model_dir"),
        number("--max_draft_len", 63),
        number("--num_eagle_layers", 4, note="most tokens that a step accepts"),
    ),
)
REDRAFTER = Table(
    "redrafter/convert_checkpoint.py",
    "not in the sheet",
    _SOURCE.format("redrafter", "0e8b9484"),
    (
        text("--model_dir", required=True),
        text("--drafter_model_dir", required=True),
        *_PLACES,
        _DTYPE,
        *each(switch, "--load_model_on_cpu --dense_context_fmha --redrafter_no_greedy_search"),
        number("--redrafter_draft_len_per_beam", 5),
        number("--redrafter_num_beams", 5),
    ),
)

"""Tensor tables of the models that TensorRT-LLM and its Triton backend ship.

Source: the `config.pbtxt` templates of `triton_backend/all_models/inflight_batcher_llm` and
`all_models/llmapi` in NVIDIA/TensorRT-LLM, and of triton-inference-server/tensorrtllm_backend v0.19.0
for the older dialect. Template placeholders stand at their usual values: float16 for encoder
features and prompt tables, float32 for logits. The vLLM backend has no template: its model completes
its own configuration (`src/model.py` in triton-inference-server/vllm_backend).
"""

from __future__ import annotations

from typing import Literal

from engine_builder.repository.tensors import DYNAMIC, Schema, TensorSpec, one, output, ragged, scalar

Dialect = Literal["1.x", "0.19"]
LlmApiDialect = Literal["1.x", "newest"]
"""Of the `llmapi` model: as of 1.0 to 1.2, and as TensorRT-LLM's main branch has it since."""

_RENAMED = {"min_tokens": "min_length", "seed": "random_seed"}
_NEW_INPUTS = ("return_num_input_tokens", "return_num_output_tokens")
_NEW_OUTPUTS = ("num_input_tokens", "num_output_tokens")

ENGINE_OUTPUTS: tuple[TensorSpec, ...] = (
    output("output_ids", "INT32", -1, -1),
    output("sequence_length", "INT32", -1),
    output("cum_log_probs", "FP32", -1),
    output("output_log_probs", "FP32", -1, -1),
    output("context_logits", "FP32", -1, -1),
    output("generation_logits", "FP32", -1, -1, -1),
    output("batch_index", "INT32"),
    output("sequence_index", "INT32"),
    output("context_phase_params", "UINT8", -1),
    output("kv_cache_alloc_new_blocks", "INT32"),
    output("kv_cache_reused_blocks", "INT32"),
    output("kv_cache_alloc_total_blocks", "INT32"),
    output("arrival_time_ns", "INT64"),
    output("first_scheduled_time_ns", "INT64"),
    output("first_token_time_ns", "INT64"),
    output("last_token_time_ns", "INT64"),
    output("acceptance_rate", "FP32"),
    output("total_accepted_draft_tokens", "INT32"),
    output("total_draft_tokens", "INT32"),
    output("num_input_tokens", "INT32"),
    output("num_output_tokens", "INT32"),
)

_ENGINE_INPUTS: tuple[TensorSpec, ...] = (
    ragged("input_ids", "INT32"),
    ragged("encoder_input_features", "FP16", -1, -1),
    scalar("encoder_output_lengths", "INT32"),
    scalar("input_lengths", "INT32", optional=False),
    scalar("request_output_len", "INT32", optional=False),
    scalar("num_return_sequences", "INT32"),
    ragged("draft_input_ids", "INT32"),
    ragged("decoder_input_ids", "INT32"),
    scalar("decoder_input_lengths", "INT32"),
    ragged("draft_logits", "FP32", -1, -1),
    scalar("draft_acceptance_threshold", "FP32"),
    scalar("end_id", "INT32"),
    scalar("pad_id", "INT32"),
    ragged("stop_words_list", "INT32", 2, -1),
    ragged("bad_words_list", "INT32", 2, -1),
    ragged("embedding_bias", "FP32"),
    scalar("beam_width", "INT32"),
    scalar("temperature", "FP32"),
    scalar("runtime_top_k", "INT32"),
    scalar("runtime_top_p", "FP32"),
    scalar("runtime_top_p_min", "FP32"),
    scalar("runtime_top_p_decay", "FP32"),
    scalar("runtime_top_p_reset_ids", "INT32"),
    scalar("len_penalty", "FP32"),
    scalar("early_stopping", "BOOL"),
    scalar("repetition_penalty", "FP32"),
    scalar("min_tokens", "INT32"),
    scalar("beam_search_diversity_rate", "FP32"),
    scalar("presence_penalty", "FP32"),
    scalar("frequency_penalty", "FP32"),
    scalar("seed", "UINT64"),
    scalar("return_log_probs", "BOOL"),
    scalar("return_context_logits", "BOOL"),
    scalar("return_generation_logits", "BOOL"),
    scalar("return_perf_metrics", "BOOL"),
    scalar("return_num_input_tokens", "BOOL"),
    scalar("return_num_output_tokens", "BOOL"),
    scalar("exclude_input_in_output", "BOOL"),
    scalar("stop", "BOOL"),
    scalar("streaming", "BOOL"),
    ragged("prompt_embedding_table", "FP16", -1, -1),
    ragged("prompt_table_extra_ids", "UINT64"),
    scalar("prompt_vocab_size", "INT32"),
    ragged("cross_attention_mask", "BOOL", -1, -1),
    ragged("skip_cross_attn_blocks", "BOOL", 1),
    TensorSpec("mrope_rotary_cos_sin", "FP32", (DYNAMIC,), optional=True),
    one("mrope_position_deltas", "INT64"),
    scalar("lora_task_id", "UINT64"),
    ragged("lora_weights", "FP16", -1, -1),
    ragged("lora_config", "INT32", -1, 3),
    ragged("context_phase_params", "UINT8"),
    ragged("retention_token_range_starts", "INT32"),
    ragged("retention_token_range_ends", "INT32"),
    ragged("retention_token_range_priorities", "INT32"),
    ragged("retention_token_range_durations_ms", "INT32"),
    ragged("retention_decode_priority", "INT32", 1),
    ragged("retention_decode_duration_ms", "INT32", 1),
    ragged("guided_decoding_guide_type", "STRING", 1),
    ragged("guided_decoding_guide", "STRING", 1),
    ragged("lookahead_window_size", "INT32", 1),
    ragged("lookahead_ngram_size", "INT32", 1),
    ragged("lookahead_verification_set_size", "INT32", 1),
)

_TEXT_INPUTS: tuple[TensorSpec, ...] = (
    one("text_input", "STRING", optional=False),
    one("decoder_text_input", "STRING"),
    one("max_tokens", "INT32", optional=False),
    TensorSpec("bad_words", "STRING", (DYNAMIC,), optional=True),
    TensorSpec("stop_words", "STRING", (DYNAMIC,), optional=True),
    one("exclude_input_in_output", "BOOL"),
    one("end_id", "INT32"),
    one("pad_id", "INT32"),
    one("top_k", "INT32"),
    one("top_p", "FP32"),
    one("temperature", "FP32"),
    one("length_penalty", "FP32"),
    one("repetition_penalty", "FP32"),
    one("min_tokens", "INT32"),
    one("presence_penalty", "FP32"),
    one("frequency_penalty", "FP32"),
    one("seed", "UINT64"),
    one("return_log_probs", "BOOL"),
    one("return_context_logits", "BOOL"),
    one("return_generation_logits", "BOOL"),
    one("return_perf_metrics", "BOOL"),
    one("return_num_input_tokens", "BOOL"),
    one("return_num_output_tokens", "BOOL"),
    one("num_return_sequences", "INT32"),
    one("beam_width", "INT32"),
    one("stream", "BOOL"),
    TensorSpec("prompt_embedding_table", "FP16", (-1, -1), optional=True),
    one("prompt_vocab_size", "INT32"),
    one("prompt_table_extra_id", "UINT64"),
    TensorSpec("embedding_bias_words", "STRING", (DYNAMIC,), optional=True),
    TensorSpec("embedding_bias_weights", "FP32", (DYNAMIC,), optional=True),
    one("lora_task_id", "UINT64"),
    TensorSpec("lora_weights", "FP16", (-1, -1), optional=True),
    TensorSpec("lora_config", "INT32", (-1, 3), optional=True),
    one("guided_decoding_guide_type", "STRING"),
    one("guided_decoding_guide", "STRING"),
)

_BLS_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("image_input", "FP16", (-1, 3, -1, -1), optional=True),
    TensorSpec("image_bytes_input", "UINT8", (-1, -1, -1, -1), optional=True),
    TensorSpec("image_url_input", "STRING", (DYNAMIC,), optional=True),
    TensorSpec("image_sizes_input", "INT64", (-1, 2), optional=True),
    TensorSpec("video_bytes_input", "UINT8", (-1, -1, -1, -1), optional=True),
    one("num_draft_tokens", "INT32"),
    one("use_draft_logits", "BOOL"),
)

PREPROCESSING = Schema(
    inputs=(
        one("QUERY", "STRING", optional=False),
        one("DECODER_QUERY", "STRING"),
        TensorSpec("IMAGE_BYTES", "UINT8", (-1, -1, -1, -1), optional=True),
        TensorSpec("IMAGE_URL", "STRING", (DYNAMIC,), optional=True),
        TensorSpec("IMAGE_SIZES", "INT64", (-1, 2), optional=True),
        TensorSpec("VIDEO_BYTES", "UINT8", (-1, -1, -1, -1), optional=True),
        one("REQUEST_OUTPUT_LEN", "INT32", optional=False),
        TensorSpec("BAD_WORDS_DICT", "STRING", (DYNAMIC,), optional=True),
        TensorSpec("STOP_WORDS_DICT", "STRING", (DYNAMIC,), optional=True),
        TensorSpec("EMBEDDING_BIAS_WORDS", "STRING", (DYNAMIC,), optional=True),
        TensorSpec("EMBEDDING_BIAS_WEIGHTS", "FP32", (DYNAMIC,), optional=True),
        one("END_ID", "INT32"),
        one("PAD_ID", "INT32"),
        one("PROMPT_TABLE_EXTRA_ID", "UINT64"),
    ),
    outputs=(
        output("INPUT_ID", "INT32", -1),
        output("REQUEST_INPUT_LEN", "INT32"),
        output("DECODER_INPUT_ID", "INT32", -1),
        output("REQUEST_DECODER_INPUT_LEN", "INT32"),
        output("BAD_WORDS_IDS", "INT32", 2, -1),
        output("STOP_WORDS_IDS", "INT32", 2, -1),
        output("EMBEDDING_BIAS", "FP32", -1),
        output("REQUEST_OUTPUT_LEN", "INT32", -1),
        output("OUT_END_ID", "INT32"),
        output("OUT_PAD_ID", "INT32"),
        output("OUT_PROMPT_TABLE_EXTRA_IDS", "UINT64", -1),
    ),
)

POSTPROCESSING = Schema(
    inputs=(
        TensorSpec("TOKENS_BATCH", "INT32", (-1, -1)),
        TensorSpec("SEQUENCE_LENGTH", "INT32", (DYNAMIC,)),
    ),
    outputs=(output("OUTPUT", "STRING", -1),),
)

_LLMAPI_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("text_input", "STRING", (DYNAMIC,)),
    one("streaming", "BOOL"),
    one("stop", "BOOL"),
    one("return_finish_reason", "BOOL"),
    one("return_stop_reason", "BOOL"),
    one("return_cumulative_logprob", "BOOL"),
    one("sampling_param_best_of", "INT32"),
    one("sampling_param_temperature", "FP32"),
    one("sampling_param_top_k", "INT32"),
    one("sampling_param_top_p", "FP32"),
    one("sampling_param_frequency_penalty", "FP32"),
    one("sampling_param_presence_penalty", "FP32"),
    one("sampling_param_max_tokens", "INT32"),
    TensorSpec("sampling_param_stop", "STRING", (DYNAMIC,), optional=True),
    one("sampling_param_seed", "UINT64"),
    one("sampling_param_exclude_input_from_output", "BOOL"),
    one("sampling_param_return_perf_metrics", "BOOL"),
)
_NEWEST_LLMAPI_INPUTS: tuple[TensorSpec, ...] = (
    one("sampling_param_logits_post_processor_name", "STRING"),
    one("lora_id", "UINT64"),
    one("lora_name", "STRING"),
    one("lora_path", "STRING"),
    one("lora_ckpt_source", "STRING"),
)
_LLMAPI_OUTPUTS: tuple[TensorSpec, ...] = (
    output("text_output", "STRING", -1),
    output("finish_reason", "STRING", -1),
    output("stop_reason", "STRING", -1),
    output("cumulative_logprob", "FP32", -1),
    output("kv_cache_reused_block", "INT32"),
    output("kv_cache_missed_block", "INT32"),
    output("kv_cache_alloc_new_blocks", "INT32"),
    output("kv_cache_alloc_total_blocks", "INT32"),
    output("kv_cache_hit_rate", "FP32"),
    output("arrival_time_ns", "INT64"),
    output("first_scheduled_time_ns", "INT64"),
    output("first_token_time_ns", "INT64"),
    output("last_token_time_ns", "INT64"),
    output("acceptance_rate", "FP32"),
    output("total_accepted_draft_tokens", "INT32"),
    output("total_draft_tokens", "INT32"),
)

VLLM = Schema(
    inputs=(
        one("text_input", "STRING", optional=False),
        TensorSpec("image", "STRING", (DYNAMIC,), optional=True),
        one("stream", "BOOL"),
        one("sampling_parameters", "STRING"),
        one("exclude_input_in_output", "BOOL"),
        one("return_finish_reason", "BOOL"),
        one("return_cumulative_logprob", "BOOL"),
        one("return_logprobs", "BOOL"),
        one("return_num_input_tokens", "BOOL"),
        one("return_num_output_tokens", "BOOL"),
        one("embedding_request", "STRING"),
    ),
    outputs=(
        output("text_output", "STRING", -1),
        output("finish_reason", "STRING", -1),
        output("cumulative_logprob", "FP32", -1),
        output("logprobs", "STRING", -1),
        output("num_input_tokens", "UINT32"),
        output("num_output_tokens", "UINT32", -1),
    ),
)


def tensorrt_llm(dialect: Dialect) -> Schema:
    """The bare C++ model: token ids in, token ids out."""
    return _in_dialect(Schema(_ENGINE_INPUTS, ENGINE_OUTPUTS), dialect)


def ensemble(dialect: Dialect) -> Schema:
    """Text in, text out, by way of preprocessing, `tensorrt_llm` and postprocessing."""
    engine = tuple(spec for spec in ENGINE_OUTPUTS if spec.name not in ("output_ids", "context_phase_params"))
    passed_on = tuple(spec for spec in engine if spec.name != "sequence_length")
    return _in_dialect(Schema(_TEXT_INPUTS, (output("text_output", "STRING", -1), *passed_on)), dialect)


def tensorrt_llm_bls(dialect: Dialect) -> Schema:
    """The ensemble's work in one Python model, with multimodal and draft-model inputs."""
    text = ensemble(dialect)
    return Schema((*text.inputs, *_BLS_INPUTS), text.outputs)


def llmapi(dialect: LlmApiDialect) -> Schema:
    """Text in, text out, by TensorRT-LLM's Python API."""
    newer = _NEWEST_LLMAPI_INPUTS if dialect == "newest" else ()
    return Schema((*_LLMAPI_INPUTS, *newer), _LLMAPI_OUTPUTS)


def _in_dialect(schema: Schema, dialect: Dialect) -> Schema:
    if dialect == "1.x":
        return schema
    inputs = tuple(_renamed(spec) for spec in schema.inputs if spec.name not in _NEW_INPUTS)
    return Schema(inputs, tuple(spec for spec in schema.outputs if spec.name not in _NEW_OUTPUTS))


def _renamed(spec: TensorSpec) -> TensorSpec:
    name = _RENAMED.get(spec.name, spec.name)
    return TensorSpec(name, spec.dtype, spec.dims, spec.optional, spec.reshape, spec.ragged)

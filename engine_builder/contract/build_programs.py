"""What TensorRT-LLM's programs that build engines take (≤ 1.2.x; deleted on its main branch)."""

from __future__ import annotations

from engine_builder.contract.options import Absent, Table, choice, each, fraction, number, switch, text

ON_OFF = "enable disable"
DTYPES = "auto float16 float32 bfloat16"
LORA_MODULES = (
    "attn_qkv attn_q attn_k attn_v attn_dense mlp_h_to_4h mlp_4h_to_h mlp_gate mlp_router "
    "cross_attn_qkv cross_attn_q cross_attn_k cross_attn_v cross_attn_dense "
    "moe_h_to_4h moe_4h_to_h moe_gate moe_router mlp_gate_up"
)
SPECULATIVE_MODES = "draft_tokens_external lookahead_decoding medusa explicit_draft_tokens eagle"
_PLUGIN = "auto float16 float32 bfloat16 int32 disable"
_FROM_CHECKPOINT = "comes from the checkpoint: give it to convert_checkpoint.py or quantize.py"

TRTLLM_BUILD = Table(
    "trtllm-build",
    "§4.1",
    "tensorrt_llm/commands/build.py and plugin/plugin.py of NVIDIA/TensorRT-LLM, about 1.2.0rc",
    (
        *each(text, "--checkpoint_dir --model_config --build_config --model_cls_file --model_cls_name"),
        text("--output_dir", "engine_outputs"),
        number("--max_batch_size", 2048),
        number("--max_input_len", 1024, note="no effect with padding removal and context FMHA"),
        number("--max_seq_len", aliases=("--max_decoder_seq_len",), note="default: the model's positions"),
        number("--max_beam_width", 1),
        number("--max_num_tokens", 8192),
        number("--opt_num_tokens"),
        number("--max_encoder_input_len", 1024),
        number("--max_prompt_embedding_table_size", 0, aliases=("--max_multimodal_len",)),
        choice("--kv_cache_type", "continuous paged disabled"),
        text("--paged_kv_cache", deprecated="--kv_cache_type paged"),
        text("--input_timing_cache"),
        text("--output_timing_cache", "model.cache"),
        choice("--profiling_verbosity", "layer_names_only detailed none", "layer_names_only"),
        *each(switch, "--strip_plan --weight_sparsity --weight_streaming --fast_build --dry_run"),
        *each(switch, "--monitor_memory --enable_debug_output"),
        text("--visualize_network"),
        number("--workers", 1, note="cut to the number of GPUs"),
        choice("--log_level", "internal_error error warning info verbose debug trace", "info"),
        choice("--logits_dtype", "float16 float32"),
        *each(switch, "--gather_context_logits --gather_all_token_logits"),
        switch("--gather_generation_logits", note="1.x: no effect, asked for at run time"),
        text("--lora_dir", kind="words"),
        choice("--lora_ckpt_source", "hf nemo", "hf"),
        choice("--lora_target_modules", LORA_MODULES, kind="words"),
        number("--max_lora_rank", 64, note="needs --lora_plugin"),
        choice("--speculative_decoding_mode", SPECULATIVE_MODES),
        number("--max_draft_len", 0),
        number("--auto_parallel", 1, until="1.2"),
        number("--gpus_per_node", 8, until="1.2"),
        text("--cluster_key", until="1.2"),
        *each(choice, "--gpt_attention_plugin --bert_attention_plugin --moe_plugin", _PLUGIN, "auto"),
        *each(choice, "--mamba_conv1d_plugin --nccl_plugin", _PLUGIN, "auto"),
        choice("--gemm_plugin", f"{_PLUGIN} fp8 nvfp4"),
        *each(choice, "--lora_plugin --dora_plugin", f"{_PLUGIN} enable"),
        *each(choice, "--gemm_swiglu_plugin --fp8_rowwise_gemm_plugin", f"{_PLUGIN} fp8"),
        *each(choice, "--low_latency_gemm_plugin --low_latency_gemm_swiglu_plugin", "fp8 disable"),
        choice("--gemm_allreduce_plugin", "float16 bfloat16 disable"),
        *each(choice, "--context_fmha --remove_input_padding --use_paged_context_fmha", ON_OFF, "enable"),
        *each(choice, "--use_fp8_context_fmha --use_fused_mlp --paged_state", ON_OFF, "enable"),
        number("--tokens_per_block", 32),
        *each(choice, "--bert_context_fmha_fp32_acc --multiple_profiles --reduce_fusion", ON_OFF, "disable"),
        *each(choice, "--user_buffer --norm_quant_fusion --fuse_fp4_quant", ON_OFF, "disable"),
        *each(choice, "--pp_reduce_scatter --streamingllm", ON_OFF, "disable"),
    ),
    absent=(
        *(Absent(name, _FROM_CHECKPOINT) for name in ("--tp_size", "--pp_size", "--cp_size")),
        *(Absent(name, _FROM_CHECKPOINT) for name in ("--world_size", "--dtype", "--quant*", "--use_fp8")),
        Absent("--auto_parallel", "auto-parallel planning was deleted; split in the checkpoint", "1.2"),
        Absent("--use_custom_all_reduce", "removed in 2024; chosen at run time", "0.12"),
        Absent("--multi_block_mode", "a parameter of the tensorrt_llm model by now", "0.12"),
        Absent("--enable_xqa", "removed; chosen at run time", "0.12"),
        Absent("--context_fmha_fp32_acc", "parameter enable_context_fmha_fp32_acc by now", "0.12"),
        Absent("--max_output_len", "say --max_seq_len: prompt and answer together", "0.11"),
    ),
)

CONVERT_CHECKPOINT = Table(
    "convert_checkpoint.py",
    "§4.2",
    "examples/models/core/llama/convert_checkpoint.py of NVIDIA/TensorRT-LLM, 368f8f2a",
    (
        *each(text, "--model_dir --meta_ckpt_dir"),
        text("--output_dir", "tllm_checkpoint"),
        choice("--dtype", DTYPES, "auto"),
        *each(number, "--tp_size --pp_size --cp_size", 1),
        *each(number, "--moe_tp_size --moe_ep_size", -1),
        number("--workers", 1),
        switch("--use_parallel_embedding"),
        number("--embedding_sharding_dim", 0, choices=("0", "1")),
        *each(switch, "--load_by_shard --load_model_on_cpu --save_config_only --remove_duplicated_kv_heads"),
        text("--quant_ckpt_path"),
        number("--group_size", 128),
        *each(switch, "--per_group --use_weight_only --disable_weight_only_quant_plugin"),
        choice("--weight_only_precision", "int8 int4 int8_gptq int4_gptq int4_awq", "int8"),
        fraction("--smoothquant", aliases=("-sq",)),
        *each(switch, "--per_channel --per_token --int8_kv_cache --fp8_kv_cache --use_fp8"),
        *each(switch, "--use_fp8_rowwise --use_meta_fp8_rowwise_recipe --use_nvfp4 --use_qserve"),
        text("--calib_dataset", "ccdv/cnn_dailymail"),
        *each(number, "--calib_size --calib_max_seq_length", 512),
        text("--log_level", "info"),
    ),
    absent=(
        Absent("--max_*", "limits are given to trtllm-build"),
        Absent("--world_size", "it is tp_size · pp_size · cp_size", "0.8"),
        Absent("--qformat", "that is quantize.py's"),
        Absent("--kv_cache_dtype", "quantize.py's; here --int8_kv_cache or --fp8_kv_cache"),
    ),
)

QUANTIZE = Table(
    "quantize.py",
    "§4.3",
    "examples/quantization/quantize.py of NVIDIA/TensorRT-LLM, 059c97c1",
    (
        text("--model_dir", note="or --nemo_ckpt_path: one is needed"),
        text("--nemo_ckpt_path"),
        choice("--decoder_type", "gptnext llama", "gptnext"),
        choice("--device", "cuda cpu", "cuda"),
        choice("--device_map", "auto sequential cpu gpu", "auto"),
        text("--calib_dataset", "cnn_dailymail", note="a folder with a `text` column spares the download"),
        *each(number, "--calib_size --calib_max_seq_length", 512),
        *each(number, "--batch_size --calib_tp_size --calib_pp_size", 1),
        choice("--dtype", DTYPES, "auto"),
        choice(
            "--qformat", "fp8 nvfp4 int8_sq int4_awq w4a8_awq int8_wo int4_wo full_prec", default="full_prec"
        ),
        number("--awq_block_size", 128),
        choice("--kv_cache_dtype", "int8 fp8", note="left out: as the activations"),
        *each(number, "--tp_size --pp_size --cp_size", 1),
        text("--output_dir", "exported_model"),
        text("--autoq_format"),
        fraction("--auto_quantize_bits"),
        switch("--quantize_lm_head"),
        choice("--export_format", "tensorrt_llm hf", "tensorrt_llm"),
        number("--seed", 1234),
        number("--tokenizer_max_seq_length", 2048),
        *each(number, "--num_medusa_heads --num_medusa_layers --max_draft_len"),
        *each(text, "--medusa_hidden_act --medusa_model_dir"),
        switch("--quant_medusa_head"),
    ),
    absent=(
        Absent("--max_batch_size", "limits are given to trtllm-build"),
        Absent("--max_seq_len", "limits are given to trtllm-build"),
        Absent("--use_parallel_embedding", "convert_checkpoint.py's"),
    ),
)

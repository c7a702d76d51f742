"""Keys of documents: arguments of LLM(), as `model.yaml` and serve.yaml have them, and Triton parameters."""

from __future__ import annotations

from engine_builder.contract.options import Absent, Table, choice, each, fraction, number, text

_CHECKPOINT = "remove it: the PyTorch backend takes the checkpoint as it is"
LLM_ARGS = Table(
    "LLM",
    "§4.5",
    "tensorrt_llm/llmapi/llm_args.py of NVIDIA/TensorRT-LLM (≤ 1.2.x), what both backends take",
    (
        *each(text, "model tokenizer tokenizer_mode dtype reasoning_parser otlp_traces_endpoint"),
        *each(text, "orchestrator_type guided_decoding_backend"),
        choice("backend", "pytorch tensorrt _autodeploy", "pytorch"),
        *each(number, "tensor_parallel_size pipeline_parallel_size context_parallel_size", 1),
        *each(number, "gpus_per_node moe_tensor_parallel_size moe_expert_parallel_size max_seq_len"),
        number("max_batch_size", 2048),
        number("max_input_len", 1024),
        number("max_beam_width", 1),
        number("max_num_tokens", 8192),
        *each(number, "num_postprocess_workers perf_metrics_max_requests", 0),
        *each(text, "trust_remote_code enable_lora enable_chunked_prefill return_perf_metrics", kind="bool"),
        *each(text, "skip_tokenizer_init enable_attention_dp", kind="bool"),
        *each(text, "revision tokenizer_revision load_format"),
        number("moe_cluster_parallel_size"),
        text("kv_cache_config", kind="map", keys="KvCacheConfig"),
        text("scheduler_config", kind="map", keys="SchedulerConfig"),
        text("lora_config", kind="map", keys="LoraConfig"),
        text("peft_cache_config", kind="map", keys="PeftCacheConfig"),
        text("speculative_config", kind="map", keys="SpeculativeConfig"),
        *each(text, "env_overrides cache_transceiver_config", kind="map"),
        # Of the PyTorch backend: `TorchLlmArgs`, in the same file.
        *each(text, "attn_backend sampler_type allreduce_strategy"),
        *each(text, "cuda_graph_config moe_config torch_compile_config", kind="map"),
        *each(text, "disable_overlap_scheduler enable_iter_perf_stats enable_iter_req_stats", kind="bool"),
        *each(text, "print_iter_log enable_autotuner enable_min_latency", kind="bool"),
        *each(number, "stream_interval garbage_collection_gen0_threshold"),
    ),
    absent=(
        *(
            Absent(name, "of the TensorRT backend alone: tensorrt_llm._tensorrt_engine.LLM", "", _CHECKPOINT)
            for name in (
                *("build_config", "quant_config", "calib_config", "enable_build_cache", "fast_build"),
                *("workspace", "batching_type", "normalize_log_probs", "embedding_parallel_mode"),
            )
        ),
        Absent("auto_parallel_config", "auto-parallel planning was deleted", "1.2"),
        Absent("tp_size", "tensor_parallel_size", remedy="rename it to tensor_parallel_size"),
    ),
)
MODEL_YAML = Table(
    "model.yaml",
    "§1.6",
    "triton_backend/all_models/llmapi/tensorrt_llm/1/model.yaml of NVIDIA/TensorRT-LLM, 0ebb1536",
    (*LLM_ARGS.options, text("triton_config", kind="map", keys="triton_config")),
    absent=LLM_ARGS.absent,
)
TRITON_CONFIG = Table(
    "triton_config",
    "§1.6",
    MODEL_YAML.source,
    (
        number("max_batch_size", 0),
        text("decoupled", kind="bool"),
        number("cancellation_check_period_ms"),
    ),
)
KV_CACHE_CONFIG = Table(
    "KvCacheConfig",
    "§4.5",
    LLM_ARGS.source,
    (
        *each(text, "enable_block_reuse onboard_blocks enable_partial_reuse use_uvm", kind="bool"),
        text("copy_on_partial_reuse", kind="bool"),
        *each(number, "max_tokens sink_token_length host_cache_size secondary_offload_min_priority"),
        text("max_attention_window", kind="words"),
        fraction("free_gpu_memory_fraction", 0.9, share=True),
        fraction("cross_kv_cache_fraction"),
        *each(number, "event_buffer_max_size max_gpu_total_bytes", 0),
        choice("dtype", "auto fp8 nvfp4", "auto", note="INT8 is of compiled engines alone"),
        number("tokens_per_block", 32),
    ),
    absent=(
        Absent("kv_cache_free_gpu_mem_fraction", "free_gpu_memory_fraction"),
        Absent("enable_kv_cache_reuse", "enable_block_reuse"),
    ),
)
SCHEDULER_CONFIG = Table(
    "SchedulerConfig",
    "§4.5",
    LLM_ARGS.source,
    (
        choice("capacity_scheduler_policy", "GUARANTEED_NO_EVICT MAX_UTILIZATION STATIC_BATCH"),
        choice("context_chunking_policy", "FIRST_COME_FIRST_SERVED EQUAL_PROGRESS"),
        text("dynamic_batch_config", kind="map"),
    ),
)
LORA_CONFIG = Table(
    "LoraConfig",
    "§4.5",
    LLM_ARGS.source,
    (
        *each(text, "lora_dir lora_target_modules", kind="words"),
        choice("lora_ckpt_source", "hf nemo", "hf"),
        number("max_lora_rank", 64),
        *each(number, "max_loras max_cpu_loras", 4),
    ),
)
PEFT_CACHE_CONFIG = Table(
    "PeftCacheConfig",
    "§4.5",
    LLM_ARGS.source,
    (
        fraction("device_cache_percent", 0.02),
        number("host_cache_size", 1 << 30),
        number("optimal_adapter_size", 8),
        number("max_adapter_size", 64),
    ),
)
SPECULATIVE_CONFIG = Table(
    "SpeculativeConfig",
    "§4.5",
    "DecodingBaseConfig and its kinds in tensorrt_llm/llmapi/llm_args.py of NVIDIA/TensorRT-LLM",
    (
        choice("decoding_type", "DraftTarget Eagle Medusa Lookahead NGram MTP", required=True),
        number("max_draft_len"),
        text("speculative_model_dir"),
        text("eagle3_one_model", kind="bool"),
        *each(number, "max_window_size max_ngram_size max_verification_set_size"),
    ),
)

TENSORRT_LLM_PARAMETERS = Table(
    "tensorrt_llm",
    "§1.2",
    "inflight_batcher_llm/src/model_instance_state.cc and config.pbtxt of NVIDIA/TensorRT-LLM, 2a9abd95",
    (
        choice("gpt_model_type", "inflight_fused_batching inflight_batching V1 v1", required=True),
        text("gpt_model_path", required=True),
        text("encoder_model_path"),
        number("max_beam_width", 1, least=1),
        choice("FORCE_CPU_ONLY_INPUT_TENSORS", "no yes", "no"),
        choice("batch_scheduler_policy", "guaranteed_no_evict max_utilization", "guaranteed_no_evict"),
        number("max_tokens_in_paged_kv_cache", least=1),
        fraction("kv_cache_free_gpu_mem_fraction", 0.9, share=True),
        fraction("cross_kv_cache_fraction", 0.5, share=True),
        number("kv_cache_host_memory_bytes", 0, least=0),
        *each(text, "kv_cache_onboard_blocks enable_kv_cache_reuse normalize_log_probs", "true", kind="bool"),
        *each(text, "enable_chunked_context exclude_input_in_output", "false", kind="bool"),
        text(
            "max_attention_window_size",
            pattern=r"\d+(,\d+)*",
            note="numbers with commas, one for each layer in turn",
        ),
        number("sink_token_length", least=0),
        *each(number, "cancellation_check_period_ms stats_check_period_ms", 100, least=1),
        number("recv_poll_period_ms", 0, least=0),
        number("iter_stats_max_iterations", 1000, least=0),
        number("request_stats_max_iterations", 0, least=0),
        *each(
            text,
            "gpu_device_ids participant_ids",
            pattern=r"\d+(,\d+)*(;\d+(,\d+)*)*",
            note="numbers with commas, `;` between instances: 0,1;2,3",
        ),
        number("num_nodes", 1, least=1),
        text("executor_worker_path", "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker"),
        choice("decoding_mode", "top_k top_p top_k_top_p beam_search medusa redrafter lookahead eagle"),
        *each(text, "medusa_choices eagle_choices"),
        *each(number, "lookahead_window_size lookahead_ngram_size lookahead_verification_set_size", least=1),
        number("lora_cache_optimal_adapter_size", 8, least=1),
        number("lora_cache_max_adapter_size", 64, least=1),
        fraction("lora_cache_gpu_memory_fraction", 0.05, share=True),
        number("lora_cache_host_memory_bytes", 1 << 30, least=0),
        text("lora_prefetch_dir"),
        fraction("gpu_weights_percent", 1.0, share=True),
        text("multi_block_mode", "true", kind="bool"),
        *each(text, "enable_context_fmha_fp32_acc cuda_graph_mode", "false", kind="bool"),
        number("cuda_graph_cache_size", 0, least=0),
        text("speculative_decoding_fast_logits", "false", kind="bool"),
        choice("guided_decoding_backend", "xgrammar"),
        *each(text, "xgrammar_tokenizer_info_path tokenizer_dir"),
    ),
    absent=(
        Absent("worker_path", "executor_worker_path", "0.10", "rename it to executor_worker_path"),
        Absent(
            "enable_trt_overlap",
            "C++ passes over it, Python refuses it",
            remedy="remove it: the runtime has no such switch any more",
        ),
        Absent(
            "max_num_sequences",
            "the engine's max_batch_size rules",
            remedy="remove it: the engine's max_batch_size rules",
        ),
        Absent(
            "max_batch_size",
            "the engine's own value rules",
            remedy="remove it: the engine's max_batch_size rules",
        ),
        Absent(
            "max_num_tokens",
            "the engine's own value rules",
            remedy="remove it: the engine's max_num_tokens rules",
        ),
        Absent(
            "max_queue_size",
            "dynamic_batching.default_queue_policy.max_queue_size",
            remedy="move it to dynamic_batching.default_queue_policy.max_queue_size",
        ),
        Absent("max_queue_delay_microseconds", "dynamic_batching", remedy="move it to dynamic_batching"),
        Absent(
            "max_kv_cache_length",
            "max_attention_window_size",
            remedy="rename it to max_attention_window_size",
        ),
        Absent(
            "enable_kv_cache_reuse_*", "enable_kv_cache_reuse", remedy="rename it to enable_kv_cache_reuse"
        ),
    ),
)

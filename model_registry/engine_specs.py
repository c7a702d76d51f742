"""EngineSpec: what is to be built, in one document; or its profile alone, and `plan` chooses the rest."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from model_registry.entities import Entity, Name, ProfileName

BuildLane = Literal["trt-engine", "llmapi", "trtllm-serve", "vllm"]
"""`trt-engine`: compiled, TensorRT-LLM up to 1.2.1. `llmapi`: Triton's Python model on the PyTorch backend.
The others: a launch configuration of an OpenAI-HTTP server."""
Precision = Literal["bf16", "fp16", "fp8", "int8-sq", "int8-wo", "int4-awq", "int4-wo", "nvfp4"]
"""Of the weights. `sq`: SmoothQuant; `wo`: weights only; `awq`: activation-aware, groups of 128."""
KvPrecision = Literal["auto", "fp8", "int8"]
"""Of the KV cache; `auto`: as the activations."""
SpeculativeMode = Literal[
    "draft_tokens_external", "lookahead_decoding", "medusa", "explicit_draft_tokens", "eagle"
]
Runtime = Literal["tensorrt-llm", "emulated"]
"""`emulated`: made by doubles of the tools, for CPU engines; never promoted on a real fleet."""

_Positive = Annotated[int, Field(gt=0)]
_Url = Annotated[
    str,
    StringConstraints(pattern=r"^\S(.{0,1022}\S)?$"),
    Field(description="a folder, or a URL that fsspec opens, such as s3://bucket/path"),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Workload(_Part):
    """The requests that an engine is chosen for, and what they are to get."""

    input_tokens: _Positive = 2048
    output_tokens: Annotated[int, Field(ge=2)] = 512
    ttft_s: Annotated[float, Field(gt=0)] | None = None
    """Target of the time to first token. None: the profile's."""
    itl_s: Annotated[float, Field(gt=0)] | None = None
    """Target of the mean time between tokens. None: the profile's."""
    requests_per_s: Annotated[float, Field(gt=0)] | None = None
    """For which `plan` says how many GPUs it takes. None: it does not."""


class Calibration(_Part):
    """Prompts that quantization measures activations with."""

    dataset: str = "cnn_dailymail"
    """A folder with a `text` column, or a name that ModelOpt knows (and downloads)."""
    samples: _Positive = 512
    max_tokens: _Positive = 512
    """Of each; longer ones are cut."""


class Speculative(_Part):
    """Several tokens a step, guessed and then verified."""

    mode: SpeculativeMode
    max_draft_len: _Positive
    draft_checkpoint: _Url | None = None
    """The smaller model or the heads that guess; None where the mode needs none (lookahead)."""


class Lora(_Part):
    """Adapters that the engine can compute with."""

    max_rank: _Positive = 64
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("attn_q", "attn_k", "attn_v")
    """TensorRT-LLM's names of modules."""


class EngineSpec(Entity):
    """One engine to be. What is None is chosen by `plan`, by the profile and the workload."""

    name: Name
    model: Name | None = None
    """The registry's model that it is for; None: not known yet."""
    checkpoint: _Url
    """Weights, tokenizer and `config.json` in Hugging Face's layout."""
    gpu_class: Annotated[str, Field(min_length=1, max_length=63)]
    """`h100-sxm`, `a100-sxm-80gb`, `l40s`, ...; engines run on no other. `cpu` for emulated ones."""
    lane: BuildLane = "trt-engine"
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+(\.\d+)?([a-z0-9.]+)?$")] = "1.2.1"
    """Of TensorRT-LLM (of vLLM, in that lane): the same when building and when serving."""
    profile: ProfileName = "balanced"
    workload: Workload = Workload()

    precision: Precision | None = None
    kv_cache: KvPrecision | None = None
    tensor_parallel: _Positive | None = None
    pipeline_parallel: _Positive | None = None
    max_batch_size: _Positive | None = None
    """Requests that run at once."""
    max_seq_len: _Positive | None = None
    """Prompt and answer together, in tokens."""
    max_num_tokens: _Positive | None = None
    """Tokens of one step, of prompts and answers together."""
    max_beam_width: _Positive = 1
    tokens_per_block: Literal[16, 32, 64, 128] = 32
    paged_context_fmha: bool = True
    """Attention over paged KV in prefill; without it no KV reuse and no chunked context."""
    fp8_context_fmha: bool | None = None
    """None: wherever the rules allow it."""
    chunked_context: bool = True
    """Long prompts in several steps, so that answers under way go on."""
    kv_reuse: bool = True
    scheduler_policy: Literal["guaranteed_no_evict", "max_utilization"] | None = None
    """None: the profile's."""
    kv_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Of the memory that is free after loading, for the KV cache."""
    gather_logits: bool = False
    """Context logits can be asked for; costs memory."""
    speculative: Speculative | None = None
    lora: Lora | None = None
    calibration: Calibration = Calibration()

    @property
    def gpus(self) -> int:
        """Of one replica, so far as it is decided."""
        return (self.tensor_parallel or 1) * (self.pipeline_parallel or 1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_seq_len is not None:
            asked = self.workload.input_tokens + self.workload.output_tokens
            if asked > self.max_seq_len:
                raise PydanticCustomError(
                    "max_seq_len",
                    "max_seq_len ({longest}) must hold workload.input_tokens + output_tokens ({asked})",
                    {"longest": self.max_seq_len, "asked": asked},
                )
        if self.chunked_context and not self.paged_context_fmha and self.lane == "trt-engine":
            raise PydanticCustomError(
                "chunked_context", "chunked_context needs paged_context_fmha: switch it on, or this off"
            )
        if self.kv_reuse and not self.paged_context_fmha and self.lane == "trt-engine":
            raise PydanticCustomError(
                "kv_reuse", "kv_reuse needs paged_context_fmha: switch it on, or this off"
            )
        return self

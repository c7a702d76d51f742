"""QuantAlgo strings, what quantize.py makes of its formats, and which precision is whose (§4.3, §4.4)."""

from __future__ import annotations

from collections.abc import Mapping

from model_registry.engine_specs import KvPrecision, Precision

_NAMES = (
    "W8A16 W4A16 W4A16_AWQ W4A8_AWQ W8A16_GPTQ W4A16_GPTQ W8A8_SQ_PER_CHANNEL W8A8_SQ_PER_TENSOR_PLUGIN "
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN "
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN W4A8_QSERVE_PER_GROUP W4A8_QSERVE_PER_CHANNEL FP8 "
    "FP8_PER_CHANNEL_PER_TOKEN FP8_BLOCK_SCALES INT8 MIXED_PRECISION NVFP4 W4A8_NVFP4_FP8 W4A8_MXFP4_FP8 "
    "W4A8_MXFP4_MXFP8 W4A16_MXFP4 NO_QUANT"
)
QUANT_ALGOS = frozenset(_NAMES.split())
KV_QUANT_ALGOS = frozenset({"FP8", "INT8", "NVFP4"})

QUANT_ALGO_BY_QFORMAT: Mapping[str, str | None] = {
    "full_prec": None,
    "fp8": "FP8",
    "nvfp4": "NVFP4",
    "int8_sq": "W8A8_SQ_PER_CHANNEL",
    "int4_awq": "W4A16_AWQ",
    "w4a8_awq": "W4A8_AWQ",
    "int8_wo": "W8A16",
    "int4_wo": "W4A16",
}
QFORMATS: Mapping[Precision, str] = {
    "bf16": "full_prec",
    "fp16": "full_prec",
    "fp8": "fp8",
    "nvfp4": "nvfp4",
    "int8-sq": "int8_sq",
    "int8-wo": "int8_wo",
    "int4-wo": "int4_wo",
    "int4-awq": "int4_awq",
}
"""quantize.py's format by a spec's precision."""
ACTIVATION_DTYPES: Mapping[Precision, str] = {"bf16": "bfloat16", "fp16": "float16"}
"""What is not quantized; others keep the checkpoint's (`auto`)."""
KV_QUANT_ALGO: Mapping[KvPrecision, str | None] = {"auto": None, "fp8": "FP8", "int8": "INT8"}

MODELOPT_VERSIONS: Mapping[str, str] = {"0.20": "0.29", "0.21": "0.31", "1.0": "0.33", "1.1": "0.37"}
"""nvidia-modelopt by TensorRT-LLM's minor version, as its release notes say; others are not known."""

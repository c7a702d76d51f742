"""Schema: what a Triton model takes and gives, and so which lane speaks to it.

Recognised from tensor names and types alone, never from the model's name. Sources of the names: the templates
of TensorRT-LLM's Triton models from 0.9 to 1.2.1 and their `llmapi` successor, and the vLLM backend.
Embedding models have no template; `inference.encoder_schema` says how they are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inference.encoder_schema import Encoder, Shape, encoder_of, optional_inputs
from inference.errors import SchemaError
from model_registry.entities import LaneName

TextMode = Literal["delta", "cumulative"]
_EMULATOR = "emulator_"
"""Prefix of the parameters that only CPU engines have."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One declared input or output; `shape` is Triton's, with the batch dimension where there is one."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Schema:
    """One model's recognised contract. Which dialect it speaks is read from the names in `inputs`."""

    lane: LaneName
    target: str
    """The Triton model to call."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    decoupled: bool = False
    max_batch_size: int = 0
    text_mode: TextMode = "delta"
    """Whether a streamed text chunk is the newest part or all of the text so far."""
    max_concurrency: int | None = None
    """Requests the engine runs at once; None: it does not say."""
    bare_target: str | None = None
    """The bare `tensorrt_llm` model behind an ensemble or BLS."""
    preprocessing_target: str | None = None
    """The tokenising model of an ensemble or BLS."""
    adds_special_tokens: bool = True
    """The server's own tokenizer puts BOS before text prompts."""
    tokens_per_block: int | None = None
    """Tokens of one KV-cache block; None: the engine does not say."""
    kv_tokens: int | None = None
    """Tokens that its KV cache holds, where it reserves room for a request's longest answer; None: it does
    not, or does not say."""
    guided_decoding: bool = False
    """The engine has a guided decoding backend; without one it ignores guides without a word."""
    emulated: bool = False
    """A CPU engine is behind it: no real one, whatever it says."""
    vectors: str | None = None
    """The output with the vectors of an encoder."""
    dimensions: int | None = None
    """Length of those vectors; None: only the answer tells."""

    @property
    def has_batch(self) -> bool:
        """Whether a request may hold several inputs, side by side in a dimension of their own."""
        first = next((t for t in self.inputs.values() if t.datatype != "BOOL"), None)
        return self.max_batch_size > 0 or (first is not None and _is_batch(first))

    @property
    def most_inputs(self) -> int | None:
        """Inputs that one embedding call may hold; None: the server sets no limit."""
        if self.lane == "vllm":
            return None
        if self.max_batch_size > 0:
            return self.max_batch_size
        return None if self.has_batch else 1

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `Endpoint.server_schema`."""
        return {
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "inputs": {name: [t.datatype, list(t.shape)] for name, t in self.inputs.items()},
            "outputs": {name: [t.datatype, list(t.shape)] for name, t in self.outputs.items()},
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Schema:
        """The schema that `as_dict` gave. Raises SchemaError when it is not one."""
        try:
            return cls(
                inputs=_stored_tensors(value["inputs"]),
                outputs=_stored_tensors(value["outputs"]),
                **{name: value[name] for name in _PLAIN_FIELDS if name in value},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"not a stored schema: {error!r}") from error


_PLAIN_FIELDS = (
    "lane",
    "target",
    "decoupled",
    "max_batch_size",
    "text_mode",
    "max_concurrency",
    "bare_target",
    "preprocessing_target",
    "adds_special_tokens",
    "tokens_per_block",
    "kv_tokens",
    "vectors",
    "dimensions",
    "guided_decoding",
    "emulated",
)


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a lane's models must at least have."""

    lanes: tuple[LaneName, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def missing(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> list[str]:
        return [
            f"{side} {name} {datatype}"
            for side, wanted, found in (("input", self.inputs, inputs), ("output", self.outputs, outputs))
            for name, datatype in wanted.items()
            if name not in found or found[name].datatype != datatype
        ]


_BARE = _Signature(
    ("tensorrt_llm",),
    {"input_ids": "INT32", "input_lengths": "INT32", "request_output_len": "INT32"},
    {"output_ids": "INT32", "sequence_length": "INT32"},
)
_TEXT = _Signature(
    ("ensemble", "tensorrt_llm_bls"),
    {"text_input": "BYTES", "max_tokens": "INT32"},
    {"text_output": "BYTES"},
)
_LLMAPI = _Signature(
    ("llmapi",),
    {"text_input": "BYTES", "sampling_param_max_tokens": "INT32"},
    {"text_output": "BYTES"},
)
_VLLM = _Signature(
    ("vllm",),
    {"text_input": "BYTES", "sampling_parameters": "BYTES"},
    {"text_output": "BYTES"},
)
_SIGNATURES = (_BARE, _LLMAPI, _TEXT, _VLLM)


def recognise(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Schema:
    """The schema of a model by `GET /v2/models/M` and `GET /v2/models/M/config`. Pure.

    Raises SchemaError that lists what was found and what is missing for the nearest lane.
    """
    inputs = _tensors(metadata.get("inputs", ()))
    outputs = _tensors(metadata.get("outputs", ()))
    for signature in _SIGNATURES:
        if not signature.missing(inputs, outputs):
            break
    else:
        return _encoder(str(metadata.get("name")), inputs, outputs, config)
    schema = Schema(
        lane=signature.lanes[0],
        target=str(metadata["name"]),
        inputs=inputs,
        outputs=outputs,
        decoupled=bool(config.get("model_transaction_policy", {}).get("decoupled", False)),
        max_batch_size=int(config.get("max_batch_size", 0)),
        text_mode="cumulative" if signature is _LLMAPI else "delta",
        guided_decoding=signature is _BARE and guides(config),
        emulated=emulates(config),
    )
    return _with_text_facts(schema, config) if signature is _TEXT else schema


def _encoder(
    name: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Schema:
    """An embedding model's schema. Raises SchemaError for what is none either."""
    max_batch_size = int(config.get("max_batch_size", 0))
    first = inputs.get("input_ids") or next(iter(inputs.values()), None)
    batch = max_batch_size > 0 or (first is not None and _is_batch(first))
    decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled", False))
    found = encoder_of(_without(batch, inputs), _without(batch, outputs), optional_inputs(config))
    if isinstance(found, Encoder) and decoupled:
        found = ["a transaction policy that is not decoupled, which `infer` needs"]
    if not isinstance(found, Encoder):
        raise _unknown(name, inputs, outputs, found)
    return Schema(
        lane="text_encoder" if found.takes_text else "encoder",
        target=name,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=max_batch_size,
        vectors=found.output,
        dimensions=found.dimensions,
    )


def _is_batch(tensor: Tensor) -> bool:
    """Whether an input's first dimension is the batch, where the configuration does not say so."""
    return len(tensor.shape) == 2 or (tensor.datatype == "BYTES" and tensor.shape == (-1,))


def _without(batch: bool, tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: Shape(t.datatype, t.shape[1:] if batch else t.shape) for name, t in tensors.items()}


def _with_text_facts(schema: Schema, config: Mapping[str, Any]) -> Schema:
    """Ensemble or BLS: they share names; only an ensemble has steps."""
    steps = config.get("ensemble_scheduling", {}).get("step", ())
    if steps:
        return replace(
            schema,
            bare_target=_step_with(steps, "input_map", "request_output_len"),
            preprocessing_target=_step_with(steps, "input_map", "QUERY"),
        )
    accumulates = is_true(parameter(config, "accumulate_tokens"))
    return replace(
        schema,
        lane="tensorrt_llm_bls",
        bare_target=parameter(config, "tensorrt_llm_model_name") or "tensorrt_llm",
        preprocessing_target=parameter(config, "preprocessing_model_name") or "preprocessing",
        text_mode="cumulative" if accumulates and schema.decoupled else "delta",
    )


def _step_with(steps: list[Mapping[str, Any]], side: str, tensor: str) -> str | None:
    """The model of the step whose own tensor names include `tensor`."""
    return next((str(step["model_name"]) for step in steps if tensor in step.get(side, {})), None)


def parameter(config: Mapping[str, Any], name: str) -> str | None:
    """A parameter of a model's configuration; an unfilled `${placeholder}` counts as not given."""
    value = config.get("parameters", {}).get(name, {}).get("string_value")
    return None if not value or value.startswith("${") else str(value)


def guides(config: Mapping[str, Any]) -> bool:
    """Whether the bare model of this configuration has a guided decoding backend."""
    return parameter(config, "guided_decoding_backend") is not None


def emulates(config: Mapping[str, Any]) -> bool:
    """Whether the model of this configuration runs a CPU engine."""
    return any(name.startswith(_EMULATOR) for name in config.get("parameters", {}))


def is_true(value: str | None) -> bool:
    """How TensorRT-LLM's models read a boolean parameter."""
    return value in {"True", "true", "TRUE", "1"}


def _stored_tensors(value: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: Tensor(kind, tuple(shape)) for name, (kind, shape) in value.items()}


def _tensors(declared: Any) -> dict[str, Tensor]:
    return {t["name"]: Tensor(str(t["datatype"]), tuple(int(d) for d in t["shape"])) for t in declared}


def _unknown(
    name: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], no_encoder: list[str]
) -> SchemaError:
    """`no_encoder`: what an embedding model would have besides, if it is something like one."""
    by_share = sorted((_share_missing(s, inputs, outputs), index) for index, s in enumerate(_SIGNATURES))
    share, index = by_share[0]
    nearest = " / ".join(_SIGNATURES[index].lanes)
    missing = _SIGNATURES[index].missing(inputs, outputs)
    if no_encoder and share > _LIKE_AN_ENCODER:
        nearest, missing = "encoder", no_encoder
    return SchemaError(
        f"model {name!r} has a schema that no lane speaks. "
        f"Found inputs: {_listed(inputs)}; outputs: {_listed(outputs)}. "
        f"Nearest is {nearest}, for which it lacks: {', '.join(missing)}"
    )


_LIKE_AN_ENCODER = 0.3
"""Share of a generating lane's tensors that may lack before a model with `input_ids` counts as encoder."""


def _share_missing(
    signature: _Signature, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> float:
    wanted = len(signature.inputs) + len(signature.outputs)
    return len(signature.missing(inputs, outputs)) / wanted


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tensor.datatype}" for name, tensor in tensors.items()) or "none"

"""From the tensors of one Triton request to requests of the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from emulator.engine import EngineError, EngineRequest, Guide, LoraTask, RejectedRequestError, SamplingParams
from emulator.triton.settings import ModelSettings
from emulator.triton.tensors import Array, BadTensorError, Tensors, scalar, unpack_words

NOT_DECOUPLED = "Streaming is only supported if model is deployed using decoupled mode."
GUIDE_MISSING = (
    "[TensorRT-LLM][ERROR] Assertion failed: The guide string must be provided unless using GuideType::kJSON."
)
_NO_LOGITS = {
    "return_context_logits": "Return context logit need to build engine with gather_context_logits",
    "return_generation_logits": (
        "To return generation logits, gather_generation_logits must be enabled in ExecutorConfig"
    ),
}
LORA_TASK_MISSING = "lora_task_id must be set for LoRA inference"
BATCH_NOT_DECOUPLED = "Batch size > 1 requires the model to be deployed using decoupled mode."


@dataclass(frozen=True, slots=True)
class BareOptions:
    """How the answer of one Triton request is to look."""

    batch_size: int
    return_sequences: int
    streaming: bool
    echo: bool
    outputs: frozenset[str]
    log_probs: bool
    perf_metrics: bool
    num_input_tokens: bool
    num_output_tokens: bool

    @property
    def sequences(self) -> int:
        return self.batch_size * self.return_sequences


def options_of(
    tensors: Tensors, requested: frozenset[str], settings: ModelSettings, echo: bool
) -> BareOptions:
    """Reads the flags and refuses what this model cannot do."""
    batch_size = _batch_size(tensors)
    streaming = bool(scalar(tensors, "streaming", False))
    return_sequences = int(scalar(tensors, "num_return_sequences", 1))
    if streaming and not settings.decoupled:
        raise EngineError(NOT_DECOUPLED)
    if return_sequences < 1:
        raise EngineError(f"num_return_sequences must be at least 1, got {return_sequences}")
    if batch_size * return_sequences > 1 and not settings.decoupled:
        raise EngineError(BATCH_NOT_DECOUPLED)
    beam_width = int(scalar(tensors, "beam_width", 1))
    if beam_width != 1:
        raise EngineError(f"Requested beam width {beam_width} is larger than the engine's max_beam_width 1")
    for name, reason in _NO_LOGITS.items():
        if scalar(tensors, name, False):
            raise RejectedRequestError(reason)
    return BareOptions(
        batch_size=batch_size,
        return_sequences=return_sequences,
        streaming=streaming,
        # Streams never repeat the prompt: the executor sends new tokens only.
        echo=not streaming and not scalar(tensors, "exclude_input_in_output", not echo),
        outputs=(requested or settings.outputs) & settings.outputs,
        log_probs=bool(scalar(tensors, "return_log_probs", False)),
        perf_metrics=bool(scalar(tensors, "return_perf_metrics", False)),
        num_input_tokens=bool(scalar(tensors, "return_num_input_tokens", False)),
        num_output_tokens=bool(scalar(tensors, "return_num_output_tokens", False)),
    )


def engine_requests(
    tensors: Tensors, options: BareOptions, numbers: list[str], fault: str | None
) -> list[EngineRequest]:
    """One request per sequence, in the order of `numbers`: items of the batch, then their sequences."""
    work = []
    for index, number in enumerate(numbers):
        item, sequence = divmod(index, options.return_sequences)
        work.append(replace(_one(tensors, options, item, sequence, fault), request_id=number))
    return work


def prompt_of(tensors: Tensors, item: int) -> tuple[int, ...]:
    """The prompt of one item of the batch, without padding."""
    ids = tensors.get("input_ids")
    if ids is None:
        raise BadTensorError("input_ids is required: this engine takes no encoder features")
    length = int(scalar(tensors, "input_lengths", 0, item))
    if not 0 <= length <= ids.shape[1]:
        raise BadTensorError(f"input_lengths says {length}, input_ids holds {ids.shape[1]}")
    return tuple(ids[item, :length].tolist())


def _one(
    tensors: Tensors, options: BareOptions, item: int, sequence: int, fault: str | None
) -> EngineRequest:
    end_id = scalar(tensors, "end_id", None, item)
    return EngineRequest(
        request_id="",
        input_ids=prompt_of(tensors, item),
        max_tokens=int(scalar(tensors, "request_output_len", 0, item)),
        end_id=None if end_id is None or end_id < 0 else int(end_id),
        stop_words=unpack_words(tensors, "stop_words_list", item),
        bad_words=unpack_words(tensors, "bad_words_list", item),
        embedding_bias=_bias(tensors, item),
        sampling=_sampling(tensors, item, sequence),
        return_log_probs=options.log_probs,
        guide=guide_of(tensors, item),
        lora=lora_of(tensors, item),
        fault=fault,
    )


def _sampling(tensors: Tensors, item: int, sequence: int) -> SamplingParams:
    # Both names: `min_length` and `random_seed` until 0.19, `min_tokens` and `seed` since.
    seed = scalar(tensors, "seed", scalar(tensors, "random_seed", None, item), item)
    min_tokens = scalar(tensors, "min_tokens", scalar(tensors, "min_length", 0, item), item)
    return SamplingParams(
        temperature=scalar(tensors, "temperature", 1.0, item),
        top_k=scalar(tensors, "runtime_top_k", 0, item),
        top_p=scalar(tensors, "runtime_top_p", 1.0, item),
        repetition_penalty=scalar(tensors, "repetition_penalty", 1.0, item),
        presence_penalty=scalar(tensors, "presence_penalty", 0.0, item),
        frequency_penalty=scalar(tensors, "frequency_penalty", 0.0, item),
        min_tokens=min_tokens,
        seed=None if seed is None else int(seed) + sequence,
    )


def guide_of(tensors: Tensors, item: int = 0) -> Guide | None:
    """The guide of one item; a type that is not known is left alone, as by the C++ model."""
    kind = _text(tensors, "guided_decoding_guide_type", item)
    guide = _text(tensors, "guided_decoding_guide", item)
    match kind:
        case "json":
            return Guide("json")
        case "json_schema" | "regex" | "ebnf_grammar":
            if guide is None:
                raise EngineError(GUIDE_MISSING)
            return Guide(kind, guide)
    return None


def lora_of(tensors: Tensors, item: int = 0) -> LoraTask | None:
    """The adapter of one item: its id, and its tensors when they came."""
    task_id = scalar(tensors, "lora_task_id", None, item)
    weights, config = _rows(tensors, "lora_weights", item), _rows(tensors, "lora_config", item)
    if task_id is not None:
        return LoraTask(int(task_id), weights, config)
    if weights is not None or config is not None:
        raise RejectedRequestError(LORA_TASK_MISSING)
    return None


def _rows(tensors: Tensors, name: str, item: int) -> Array | None:
    array = tensors.get(name)
    return None if array is None or array.size == 0 else array[item]


def _text(tensors: Tensors, name: str, item: int) -> str | None:
    value = scalar(tensors, name, None, item)
    if value is None:
        return None
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise BadTensorError(f"tensor {name} is not valid UTF-8") from error


def _bias(tensors: Tensors, item: int) -> Array | None:
    bias = tensors.get("embedding_bias")
    if bias is None or bias.size == 0:
        return None
    return np.asarray(bias[item], np.float32)


def _batch_size(tensors: Tensors) -> int:
    lengths = tensors.get("input_lengths")
    if lengths is None or tensors.get("request_output_len") is None:
        raise BadTensorError("input_lengths and request_output_len are required")
    return int(lengths.shape[0])

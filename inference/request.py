"""InferenceRequest: one request as the adapters of every lane understand it.

msgspec structs, here and wherever every request makes one: a quarter of a dataclass's cost to build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct, field

from inference.logit_bias import LogitBias


class Sampling(Struct, gc=False):
    """How the next token is chosen. None: the engine's own default applies."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_tokens: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    log_probs: bool = False
    """Return the log probability of every chosen token."""
    top_log_probs: int = 0
    """Return so many of the likeliest tokens beside each chosen one; needs `log_probs`."""


class Guide(NamedTuple):
    """What the answer's text must be, as TensorRT-LLM's guided decoding takes it (contract sheet 1.9)."""

    kind: Literal["json", "json_schema", "regex", "ebnf_grammar"]
    text: str = ""
    """The schema as JSON, the expression or the grammar; empty for any JSON."""


class RawTensor(NamedTuple):
    """A tensor of any type as its bytes, in the order and size that Triton takes; only gRPC carries it."""

    shape: tuple[int, ...]
    """Without the batch dimension."""
    data: bytes


class LoraWeights(NamedTuple):
    """One adapter as TensorRT-LLM's engines take it (contract sheet 1.1)."""

    weights: RawTensor
    """FP16 [rows, width]."""
    config: RawTensor
    """INT32 [rows, 3]."""


class Lora(Struct, frozen=True):
    """The LoRA adapter that a request is computed with."""

    task_id: int
    """Stands for the weights: other weights have another one."""
    name: str
    """What a server calls it that knows adapters by name."""
    server_path: str | None = None
    """Its folder, for a server that reads it itself."""
    weights: LoraWeights | None = None
    """Sent along; None where the server is believed to have them."""


class Extra(NamedTuple):
    """A field that most lanes have no place for."""

    value: Any
    why: str
    """Why a lane that does not carry it refuses it."""


class Options(Struct):
    """What few requests ask for. Every lane carries each of these or refuses it by its name."""

    logit_bias: LogitBias | None = None
    bad_words: tuple[str, ...] = ()
    """Texts that may not be said, each in every form that is a different row of tokens."""
    bad_ids: tuple[tuple[int, ...], ...] = ()
    """`bad_words` tokenised without special tokens, for lanes that take ids."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer besides the model's own; `stop_ids` has them too."""
    kept_stop: tuple[str, ...] = ()
    """Stop strings that stay in the answer: the gateway finds them, where the engine is not told."""
    ignore_eos: bool = False
    """Go on after the model's own end tokens: `end_id` is -1 then, which no token has."""
    skip_special_tokens: bool = True
    """False: special tokens are part of the text."""
    add_special_tokens: bool = True
    """False: the prompt is tokenised as it is, without BOS."""
    extras: Mapping[str, Extra] = {}
    """By the client's name."""
    names: Mapping[str, str] = {}
    """What the client calls a field, where that is not the name a lane refuses it by."""


class EmbeddingInput(Struct):
    """One input of an embedding request."""

    ids: list[int]
    """With the special tokens that the model's tokenizer adds."""
    text: str | None = None
    """None where the client sent ids: text encoders cannot take it then."""


class InferenceRequest(Struct, gc=False):
    """What one attempt asks of a model server.

    `prompt_ids` and `prompt_text` are set for the Triton lanes, `body` for `openai-http`, and `inputs` alone
    where vectors are asked for.
    """

    id: str
    model: str
    stream: bool
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    guide: Guide | None = None
    lora: Lora | None = None
    options: Options | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[tuple[int, ...], ...] = ()
    """`stop` tokenised without special tokens, for lanes that take ids."""
    prompt_ids: list[int] | None = None
    prompt_text: str | None = None
    """The rendered prompt, without the BOS that the model's tokenizer adds."""
    prompt_bos: str = ""
    """That BOS as text, for a server whose tokenizer was set up to add none."""
    end_id: int | None = None
    pad_id: int | None = None
    path: str = "/v1/chat/completions"
    """Path at an OpenAI-HTTP upstream."""
    body: dict[str, Any] | None = None
    """A JSON object in OpenAI's words, for `openai-http`."""
    relay: bool = True
    """Pass the bytes of an OpenAI-HTTP answer on as they are; else they are read, and pushed as parts."""
    inputs: Sequence[EmbeddingInput] | None = None
    """What is to be embedded."""
    traceparent: str | None = None
    """W3C trace context sent on."""
    tracestate: str | None = None
    """Of the caller, sent on beside `traceparent`."""

    @property
    def trace_headers(self) -> str:
        """The trace context as header lines of HTTP/1.1."""
        if self.traceparent is None:
            return ""
        state = "" if self.tracestate is None else f"tracestate: {self.tracestate}\r\n"
        return f"traceparent: {self.traceparent}\r\n{state}"


class EngineTimes(Struct, frozen=True, gc=False):
    """How long the parts of one request took at its engine, by the engine's own clock, in seconds."""

    queue_s: float
    """From its arrival there until it was first scheduled."""
    prefill_s: float
    """From then to the first token of its answer."""
    decode_s: float
    """From that to the last one."""


class Usage(Struct, frozen=True, gc=False):
    """Token counts of one finished call, as far as the server told them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the completion tokens, those of thoughts, where they can be told exactly."""
    counts_end: bool = False
    """The token that ended the answer is always among the completion tokens; else the text tells whether."""
    engine: EngineTimes | None = None
    """None: its engine told nothing of itself."""


NO_USAGE = Usage()
"""Of a call that has told nothing."""

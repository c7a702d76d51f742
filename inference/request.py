"""InferenceRequest: one request as the adapters of every lane understand it.

msgspec structs, here and wherever every request makes one: a quarter of a dataclass's cost to build.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from msgspec import Struct, field


class Sampling(Struct):
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


class Guide(NamedTuple):
    """What the answer's text must be, as TensorRT-LLM's guided decoding takes it (contract sheet 1.9)."""

    kind: Literal["json", "json_schema", "regex", "ebnf_grammar"]
    text: str = ""
    """The schema as JSON, the expression or the grammar; empty for any JSON."""


class InferenceRequest(Struct):
    """What one attempt asks of a model server.

    `prompt_ids` and `prompt_text` are set for the Triton lanes, `body` for `openai-http`.
    """

    id: str
    model: str
    stream: bool
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    guide: Guide | None = None
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


class Usage(NamedTuple):
    """Token counts of one finished call, as far as the server told them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the completion tokens, those the model thought with."""

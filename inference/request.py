"""InferenceRequest: one request as the adapters of every lane understand it.

msgspec structs, here and wherever every request makes one: a quarter of a dataclass's cost to build.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Struct, field

COMPLETIONS = "/v1/completions"
"""The path whose `logprobs` counts what chat calls `top_logprobs`."""


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
    top_log_probs: int = 0
    """Return as many likeliest tokens beside each; needs `log_probs`."""


class EmbeddingInput(Struct):
    """One input of an embedding request."""

    ids: list[int]
    """With the special tokens that the model's tokenizer adds."""
    text: str | None = None
    """None where the client sent ids: text encoders cannot take it then."""


class InferenceRequest(Struct):
    """What one attempt asks of a model server.

    `prompt_ids` and `prompt_text` are set for the Triton lanes, `body` for `openai-http`, and `inputs` alone
    where vectors are asked for.
    """

    id: str
    model: str
    stream: bool
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
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
    """The client's own JSON object, for `openai-http`."""
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


class Usage(NamedTuple):
    """Token counts of one finished call, as far as the server told them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """As the engine counts: with the end token, where one ended the answer."""
    cached_tokens: int | None = None
    ended_by_text: bool = False
    """The server saw one of the request's stop strings: no end token is among the counted ones."""

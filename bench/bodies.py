"""What is asked: about 1 KB of chat, as OpenAI takes it and as the bare `tensorrt_llm` does."""

from __future__ import annotations

from typing import Any

QUESTION = (
    "Our support desk answers about four hundred tickets a day, and a good half of them ask for the "
    "same five things: a new password, the state of an order, a copy of an invoice, a change of "
    "address, and whether something is in stock. We would like a short plan, in plain words, for "
    "answering those five by ourselves within a minute, day and night, while anything unusual still "
    "reaches a person who can decide. Please name what we need, what it costs us in work every week, "
    "what may go wrong in the first month, and how we notice early that it does. Keep in mind that a "
    "third of our customers write in French or German, that some of them attach photographs, and that "
    "we must not send anything about an order to somebody who cannot show that it is theirs. Say first "
    "what you would do on the very first day. "
)
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. Answer in short paragraphs."},
    {"role": "user", "content": QUESTION},
]
PROMPT_IDS = [17 + 13 * n % 900 for n in range(220)]
"""As long as the question is in tokens of the benchmark's tokenizer."""


def chat(model: str, stream: bool, tokens: int) -> dict[str, Any]:
    """A chat completion request."""
    body: dict[str, Any] = {"model": model, "max_tokens": tokens, "temperature": 0.7, "messages": MESSAGES}
    return {**body, "stream": True} if stream else body


def tensorrt_llm(stream: bool, tokens: int) -> dict[str, Any]:
    """The same request as a gateway would send it to Triton's generate extension."""
    return {
        "input_ids": PROMPT_IDS,
        "input_lengths": len(PROMPT_IDS),
        "request_output_len": tokens,
        "temperature": 0.7,
        "end_id": 2,
        "pad_id": 2,
        "exclude_input_in_output": True,
        "streaming": stream,
    }

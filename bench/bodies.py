"""What is asked: about 1 KB of chat in its third turn, as OpenAI and as the bare `tensorrt_llm` take it.

System prompt and earlier turns repeat from request to request, as they do in use; the last message never.
"""

from __future__ import annotations

from typing import Any

NUMBER = "0" * 16
"""In a body, this is another number in every request (`--unique` of `load.c`)."""
SYSTEM = (
    "You are the assistant of a support desk. Answer in short paragraphs and plain words, and say what you "
    "do not know."
)
TURNS = [
    (
        "We answer about four hundred tickets a day, and a good half of them ask for the same five things: a "
        "new password, the state of an order, a copy of an invoice, a change of address, and whether "
        "something is in stock. What would you do on the very first day?"
    ),
    (
        "Sort yesterday's tickets into those five and the rest, and answer the largest group from one text. "
        "Everything unusual goes to a person who can decide."
    ),
    "A third of our customers write in French or German, and some attach photographs. What changes?",
    "Not the order of steps. Keep one text for each language, and let photographs go to a person.",
]
QUESTION = (
    f"This is about ticket {NUMBER}. Please name what we need for it, what may go wrong in the first month, "
    "and how we notice early that it does. "
)
MESSAGES = [
    {"role": "system", "content": SYSTEM},
    *({"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(TURNS)),
    {"role": "user", "content": QUESTION},
]
PROMPT_IDS = [17 + 13 * n % 900 for n in range(250)]
"""As long as the chat is in tokens of the benchmark's tokenizer."""


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

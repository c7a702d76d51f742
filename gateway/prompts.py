"""From a client's request to what model servers are asked: one InferenceRequest per choice."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from gateway.api.errors import bad_request
from gateway.api.requests import ApiRequest
from gateway.config import GatewayConfig
from inference.request import InferenceRequest, Sampling
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Model


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as text and as the model's token ids."""

    text: str | None
    ids: list[int]


async def read_prompts(api: ApiRequest, model: Model, tokenizer: ModelTokenizer) -> list[Prompt]:
    """The prompts of `api`; long ones are tokenised off the event loop.

    Raises RequestRefusedError where the chat template refuses, ApiError for ids the model does not have.
    """
    if api.messages is not None:
        text = tokenizer.render(api.messages)
        _refuse_hopeless(text, model, tokenizer, _prompt_field(api))
        return [Prompt(text, await tokenizer.encode_async(text, rendered=True))]
    return [await _read(prompt, model, tokenizer) for prompt in api.prompts or ()]


async def _read(prompt: str | list[int], model: Model, tokenizer: ModelTokenizer) -> Prompt:
    if isinstance(prompt, str):
        _refuse_hopeless(prompt, model, tokenizer, "prompt")
        return Prompt(prompt, await tokenizer.encode_async(prompt) or _nothing(tokenizer))
    if len(prompt) >= model.context_length:
        return Prompt(None, prompt)  # refused for its length, without its text
    largest, last = max(prompt), tokenizer.vocab_size - 1
    if largest > last:
        raise bad_request(f"`prompt` holds the token id {largest}; this model's ids end at {last}.", "prompt")
    return Prompt(tokenizer.decode(prompt), prompt)


def _refuse_hopeless(text: str, model: Model, tokenizer: ModelTokenizer, param: str) -> None:
    """Refuse a text that cannot fit, however it is tokenised, before that is done."""
    longest = tokenizer.longest_token
    if longest is not None and len(text) > longest * model.context_length:
        raise bad_request(
            f"This model's maximum context length is {model.context_length} tokens; your {param} has at "
            f"least {len(text) // longest}. Shorten it.",
            param,
            "context_length_exceeded",
        )


def _nothing(tokenizer: ModelTokenizer) -> list[int]:
    """The prompt that continues from nothing; engines need at least one token."""
    begin = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.end_id
    if begin is None:
        raise bad_request(
            "`prompt` is empty, and this model has no token to begin with. Send text.", "prompt"
        )
    return [begin]


def requests_for(
    api: ApiRequest,
    model: Model,
    prompts: list[Prompt],
    tokenizer: ModelTokenizer,
    request_id: str,
    config: GatewayConfig,
    upstream_path: str,
) -> list[InferenceRequest]:
    """What each choice asks of a Triton lane: `n` for every prompt, in OpenAI's order.

    Raises ApiError 400 `context_length_exceeded`.
    """
    stops = (tuple(tokenizer.encode(stop, add_special_tokens=False)) for stop in api.stop)
    stop_ids = (*tokenizer.stop_ids, *stops)
    bos = (tokenizer.bos_token or "") if tokenizer.adds_bos else ""
    made: list[InferenceRequest] = []
    for prompt in prompts:
        max_tokens = answer_length(api, model, len(prompt.ids), config)
        for _ in range(api.n):
            choice = len(made)
            made.append(
                InferenceRequest(
                    id=f"{request_id}-{choice}",
                    model=model.name,
                    stream=api.stream,
                    max_tokens=max_tokens,
                    sampling=_sampling(api.sampling, choice),
                    stop=api.stop,
                    stop_ids=stop_ids,
                    prompt_ids=prompt.ids,
                    prompt_text=prompt.text,
                    prompt_bos=bos,
                    end_id=tokenizer.end_id,
                    pad_id=tokenizer.pad_id,
                    path=upstream_path,
                    body=api.raw,
                    relay=api.translation is None,
                )
            )
    return made


def _sampling(asked: Sampling, choice: int) -> Sampling:
    """OpenAI's default temperature, which engines do not share; a seed of its own for every choice."""
    temperature = 1.0 if asked.temperature is None else asked.temperature
    seed = asked.seed if asked.seed is None else asked.seed + choice
    return replace(asked, temperature=temperature, seed=seed)


def relayed(api: ApiRequest, model: Model, request_id: str, upstream_path: str) -> InferenceRequest:
    """What an OpenAI-HTTP upstream is asked: the client's own body; it makes all choices itself."""
    return InferenceRequest(
        id=request_id,
        model=model.name,
        stream=api.stream,
        max_tokens=api.max_tokens or 0,
        path=upstream_path,
        body=api.raw,
        relay=api.translation is None,
    )


def _prompt_field(api: ApiRequest) -> str:
    """What the client calls its prompt."""
    if api.messages is None:
        return "prompt"
    return "messages" if api.translation is None else api.translation.place_of("messages")


def answer_length(api: ApiRequest, model: Model, prompt_tokens: int, config: GatewayConfig) -> int:
    """The most tokens the answer may have. Raises ApiError 400 when prompt and answer exceed the context."""
    left = model.context_length - prompt_tokens
    param = _prompt_field(api)
    if left < 1:
        raise bad_request(
            f"This model's maximum context length is {model.context_length} tokens; your {param} has "
            f"{prompt_tokens}. Shorten it.",
            param,
            "context_length_exceeded",
        )
    if api.max_tokens is None:
        return min(left, config.default_max_tokens)
    if api.max_tokens > left:
        raise bad_request(
            f"This model's maximum context length is {model.context_length} tokens. You asked for "
            f"{prompt_tokens + api.max_tokens}: {prompt_tokens} in the {param}, {api.max_tokens} in the "
            "answer. Reduce either.",
            param,
            "context_length_exceeded",
        )
    return api.max_tokens

"""From a client's request to what model servers are asked: one InferenceRequest per choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.api.errors import ApiError, bad_request
from gateway.api.options import ApiOptions
from gateway.api.requests import ApiRequest
from gateway.api.template_names import check_names_read
from gateway.config import GatewayConfig
from inference.errors import InferenceError, TokenizerError
from inference.logit_bias import LogitBias
from inference.request import InferenceRequest, Options, Sampling
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Model


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as text and as the model's token ids."""

    text: str | None
    ids: list[int]


async def read_prompts(api: ApiRequest, model: Model, tokenizer: ModelTokenizer) -> list[Prompt]:
    """The prompts of `api`; long ones are rendered and tokenised off the event loop.

    Raises RequestRefusedError where the chat template refuses, ApiError for ids the model does not have.
    """
    options = api.options
    cut_to = None if options is None else options.truncate_to
    if api.messages is not None:
        text = await _render(api, tokenizer)
        if cut_to is None:
            refuse_hopeless(text, model, tokenizer, _prompt_field(api))
        prompts = [Prompt(text, await tokenizer.encode_async(text, rendered=True))]
    else:
        special = options is None or options.add_special_tokens
        prompts = [await _read(prompt, model, tokenizer, special, cut_to) for prompt in api.prompts or ()]
    if cut_to is None:
        return prompts
    return [_cut(prompt, _room(cut_to, api, model), tokenizer) for prompt in prompts]


async def _render(api: ApiRequest, tokenizer: ModelTokenizer) -> str:
    assert api.messages is not None
    tools = api.tools.definitions if api.tools is not None and api.tools.choice != "none" else None
    if not api.template_names or tokenizer.templates is None:
        return await tokenizer.render_async(api.messages, tools)
    names = check_names_read(api.template_names, tokenizer.templates.choose(tools).reads)
    return await tokenizer.render_async(api.messages, tools, **names)


async def _read(
    prompt: str | list[int], model: Model, tokenizer: ModelTokenizer, special: bool, cut_to: int | None
) -> Prompt:
    if isinstance(prompt, str):
        if cut_to is None:
            refuse_hopeless(prompt, model, tokenizer, "prompt")
        return Prompt(prompt, await tokenizer.encode_async(prompt, special) or _nothing(tokenizer))
    if len(prompt) >= model.context_length and cut_to is None:
        return Prompt(None, prompt)  # refused for its length, without its text
    check_ids(prompt, tokenizer, "prompt")
    return Prompt(tokenizer.decode(prompt), prompt)


def _room(cut_to: int, api: ApiRequest, model: Model) -> int:
    """Tokens that a prompt is cut to; -1 stands for what fits beside the answer."""
    return cut_to if cut_to > 0 else max(1, model.context_length - (api.max_tokens or 1))


def _cut(prompt: Prompt, tokens: int, tokenizer: ModelTokenizer) -> Prompt:
    """The end of a prompt, with its BOS: no text gives just these ids again, so it has none then."""
    ids = prompt.ids
    if len(ids) <= tokens:
        return prompt
    if tokenizer.bos_id is not None and ids[0] == tokenizer.bos_id:
        return Prompt(None, [ids[0], *ids[len(ids) - tokens + 1 :]])
    return Prompt(None, ids[len(ids) - tokens :])


def refuse_hopeless(text: str, model: Model, tokenizer: ModelTokenizer, param: str) -> None:
    """Refuse a text that cannot fit, however it is tokenised, before that is done."""
    longest = tokenizer.longest_token
    if longest is not None and len(text) > longest * model.context_length:
        raise bad_request(
            f"This model's maximum context length is {model.context_length} tokens; your {param} has at "
            f"least {len(text) // longest}. Shorten it.",
            param,
            "context_length_exceeded",
        )


def check_ids(ids: Collection[int], tokenizer: ModelTokenizer, param: str) -> None:
    """Refuse ids that the model does not have."""
    largest, last = max(ids, default=0), tokenizer.vocab_size - 1
    if largest > last:
        raise bad_request(f"`{param}` holds the token id {largest}; this model's ids end at {last}.", param)


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
    special = api.options
    options = None if special is None else engine_options(special, api.stop, tokenizer)
    for prompt in prompts:
        max_tokens = answer_length(api, model, len(prompt.ids), config)
        for _ in range(api.answers):
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
    if special is not None:
        for request in made:
            _apply(special, options, request)
    return made


def _apply(special: ApiOptions, options: Options | None, request: InferenceRequest) -> None:
    """What few requests ask for, where it changes more than `options`."""
    request.options = options
    request.guide = special.guide
    if special.ignore_eos:
        request.end_id = -1
        request.stop_ids = request.stop_ids[len(request.stop_ids) - len(request.stop) :]
    request.stop_ids = (*((token,) for token in special.stop_token_ids), *request.stop_ids)
    if special.include_stop:
        # An engine may leave the string out: the gateway finds it, and cancels there.
        request.stop_ids = request.stop_ids[: len(request.stop_ids) - len(request.stop)]
        request.stop = ()
        request.stream = True


def engine_options(special: ApiOptions, stop: tuple[str, ...], tokenizer: ModelTokenizer) -> Options:
    """`special` as lanes take it. Raises ApiError 400 for token ids that the model does not have."""
    check_ids(special.logit_bias, tokenizer, "logit_bias")
    check_ids(special.stop_token_ids, tokenizer, "stop_token_ids")
    bad_words = tuple(form for word in special.bad_words for form in _forms(word))
    bad_ids = (tuple(tokenizer.encode(word, add_special_tokens=False)) for word in bad_words)
    names = special.names
    if special.include_stop:
        names = {"stream": "include_stop_str_in_output", **names}
    if special.truncate_to is not None:
        names = {"prompt": "truncate_prompt_tokens", **names}
    return Options(
        logit_bias=_bias(special.logit_bias, tokenizer) if special.logit_bias else None,
        bad_words=bad_words,
        bad_ids=tuple(ids for ids in bad_ids if ids),
        kept_stop=stop if special.include_stop else (),
        stop_token_ids=special.stop_token_ids,
        ignore_eos=special.ignore_eos,
        skip_special_tokens=special.skip_special_tokens,
        add_special_tokens=special.add_special_tokens,
        extras=special.extras,
        names=names,
    )


def _forms(word: str) -> tuple[str, ...]:
    """A word begins a text, or follows a space, and each has tokens of its own."""
    return (word,) if word.startswith(" ") else (word, f" {word}")


def _bias(biases: Mapping[int, float], tokenizer: ModelTokenizer) -> LogitBias:
    words = tuple(map(tokenizer.word_of, biases))
    known = tuple(word for word in words if word is not None)
    return LogitBias(biases, tokenizer.vocab_size, known if len(known) == len(words) else None)


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
        sampling=api.sampling,
        path=upstream_path,
        body=api.raw,
        relay=api.translation is None,
    )


async def ids_to_route_by(api: ApiRequest, model: Model, tokenizers: Tokenizers) -> list[int] | None:
    """The token ids that an upstream will make of a single prompt, to know by whose cache holds it.

    None where they cannot be told: whether the request can be served is for the upstream to say.
    """
    if model.tokenizer is None or (api.prompts is not None and len(api.prompts) != 1):
        return None
    try:
        return (await read_prompts(api, model, await tokenizers.get(model)))[0].ids
    except (ApiError, InferenceError, TokenizerError):
        return None


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

"""Smoke prompts: one small request for each feature that an engine declares, on a live server.

Each says what was seen, or yields what went wrong; none judges the quality of answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np

from engine_builder.errors import BuilderError
from engine_builder.package.manifest import Feature
from engine_builder.preflight.asking import Answer, Asker
from engine_builder.preflight.zero_adapter import zero_adapter
from inference.control import TritonControl
from inference.errors import InferenceError
from inference.request import Guide, Lora, LoraWeights, RawTensor
from model_registry.engines import Check

LONG = 400
"""Tokens asked for where the answer is to be left early."""
FREED_WITHIN_S = 5.0
"""By when an engine must have let go of a request whose client left."""
_DIGITS = "[0-9]{3}"
_LONE_TOKENS = 3
"""Of an answer that can be stopped early."""
_TOO_SHORT = "look at the prompt: is the chat template the model's own?"


class FailedError(Exception):
    """A feature does not do what it should; the message says what was seen, `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


Smoke = Callable[[Asker, TritonControl, "Path | None"], Awaitable[str]]
"""Takes who asks, the server's control and the package's tokenizer folder; returns what was seen."""


async def smoke(feature: Feature, asker: Asker, control: TritonControl, checkpoint: Path | None) -> Check:
    """The check of one feature. `checkpoint`: a folder with the model's `config.json`, where there is one."""
    name = f"smoke_{feature}"
    try:
        return Check(name=name, passed=True, detail=await _SMOKES[feature](asker, control, checkpoint))
    except FailedError as error:
        return Check(name=name, passed=False, detail=str(error), remedy=error.remedy)
    except InferenceError as error:
        remedy = "the server's log says more; see that it runs the engine that was fetched"
        return Check(name=name, passed=False, detail=f"the server refused or failed: {error}", remedy=remedy)
    except BuilderError as error:
        return Check(name=name, passed=False, detail=str(error), remedy=error.remedy)


async def _stream(asker: Asker, _control: TritonControl, _checkpoint: Path | None) -> str:
    answer = await asker.ask()
    if answer.pushes == 0:
        raise FailedError("the answer is empty", "look at the prompt: is the chat template the model's own?")
    if answer.pushes == 1 and len(answer.ids) != 1:
        raise FailedError("the answer came in one piece", "serve the model decoupled")
    return f"{answer.pushes} pieces, ended by {answer.reason or 'its end'}: {asker.said(answer)[:60]!r}"


async def _stop(asker: Asker, _control: TritonControl, _checkpoint: Path | None) -> str:
    """A word of the greedy answer, asked to be its end the next time."""
    free = await asker.ask()
    if asker.takes_ids:
        return await _stop_at_token(asker, free)
    said = asker.said(free)
    words = _words(asker, said)
    if not words:
        raise FailedError("the answer is too short to be stopped", _TOO_SHORT)
    word = words[len(words) // 2]
    stopped = asker.said(await asker.ask(stop=word))
    allowed = said.find(word) + len(word)
    if len(stopped) > allowed:
        raise FailedError(
            f"asked to stop at {word!r}, it went on to {stopped[allowed:][:40]!r}",
            "see that the model declares and passes on its stop words",
        )
    return f"stopped at {word!r}"


def _words(asker: Asker, said: str) -> list[str]:
    """Parts of an answer that it can be stopped at: engines match stop words token by token."""
    tokenizer = asker.tokenizer
    if tokenizer is None:
        found = re.findall(r"\w+", said)
    else:
        ids = tokenizer.encode(said, add_special_tokens=False)
        found = [word for token in ids if (word := tokenizer.word_of(token)) and word.strip()]
    return [word for word in found if said.find(word) + len(word) < len(said.rstrip())]


async def _stop_at_token(asker: Asker, free: Answer) -> str:
    ids = free.ids
    if len(ids) < _LONE_TOKENS:
        raise FailedError("the answer is too short to be stopped", _TOO_SHORT)
    token = ids[_LONE_TOKENS - 1]
    stopped = await asker.ask(stop_ids=(token,))
    allowed = ids.index(token) + 1
    if len(stopped.ids) > allowed:
        raise FailedError(
            f"asked to stop at token {token}, the engine made {len(stopped.ids) - allowed} more",
            "see that stop_words_list is declared and reaches the engine",
        )
    return f"stopped at token {token}"


async def _seed(asker: Asker, _control: TritonControl, _checkpoint: Path | None) -> str:
    first, second = [asker.said(await asker.ask(seed=1234)) for _ in range(2)]
    if first != second:
        raise FailedError(
            f"the same seed gave {first[:40]!r} and {second[:40]!r}",
            "see that the seed is declared under the name that this release reads",
        )
    return f"the same seed gave the same answer twice: {first[:40]!r}"


async def _logprobs(asker: Asker, _control: TritonControl, _checkpoint: Path | None) -> str:
    answer = await asker.ask(log_probs=True)
    if not answer.log_probs or (asker.takes_ids and len(answer.log_probs) != len(answer.ids)):
        raise FailedError(
            f"{len(answer.log_probs)} log probabilities for {len(answer.ids)} tokens",
            "see that return_log_probs and output_log_probs are declared",
        )
    if max(answer.log_probs) > 1e-3:
        raise FailedError(
            f"a log probability of {max(answer.log_probs):g}", "build the engine anew: it cannot be above 0"
        )
    return f"{len(answer.log_probs)} log probabilities, mean {np.mean(answer.log_probs):.2f}"


async def _cancel(asker: Asker, control: TritonControl, _checkpoint: Path | None) -> str:
    begun = asyncio.Event()
    answer = Answer(on_push=begun.set)
    call = asker.start(answer, max_tokens=LONG)
    await _first(begun, answer)
    call.cancel()
    model = asker.schema.bare_target or asker.schema.target
    counted = (await control.engine_metrics(model)).get("nv_trt_llm_request_metrics")
    if counted is None:
        await asker.ask(max_tokens=2)
        return "left after its first token, and the server answers on; it tells no active requests"
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    while counted.get("active"):
        if loop.time() - started_s > FREED_WITHIN_S:
            raise FailedError(
                f"{counted['active']:g} requests are active {FREED_WITHIN_S:g} s after the client left",
                "lower cancellation_check_period_ms; and see that nobody else asks this server meanwhile",
            )
        await asyncio.sleep(0.05)
        counted = (await control.engine_metrics(model))["nv_trt_llm_request_metrics"]
    return f"left after its first token, its slot free {loop.time() - started_s:.1f} s later"


async def _first(begun: asyncio.Event, answer: Answer) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (begun, answer.over)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if answer.error is not None:
        raise answer.error


async def _guided(asker: Asker, _control: TritonControl, _checkpoint: Path | None) -> str:
    said = asker.said(await asker.ask(guide=Guide("regex", _DIGITS))).strip()
    if not re.fullmatch(_DIGITS, said):
        raise FailedError(
            f"told to answer {_DIGITS}, it said {said[:40]!r}",
            "set guided_decoding_backend to xgrammar, with its tokenizer file",
        )
    return f"told to answer {_DIGITS}, it said {said!r}"


async def _lora(asker: Asker, _control: TritonControl, checkpoint: Path | None) -> str:
    """An adapter of zeros: taken, and changing nothing."""
    tensors = zero_adapter(checkpoint)
    weights = LoraWeights(
        RawTensor(tensors.weights.shape, tensors.weights.tobytes()),
        RawTensor(tensors.config.shape, tensors.config.tobytes()),
    )
    base = asker.said(await asker.ask())
    adapted = asker.said(await asker.ask(lora=Lora(2**62 + 1, "preflight", weights=weights)))
    if adapted != base:
        raise FailedError(
            f"an adapter of zeros changed {base[:40]!r} to {adapted[:40]!r}",
            "build the engine with --lora_plugin of the adapters' type",
        )
    return "took an adapter of zeros, which changed nothing"


_SMOKES: Mapping[Feature, Smoke] = {
    "stream": _stream,
    "stop": _stop,
    "seed": _seed,
    "logprobs": _logprobs,
    "cancel": _cancel,
    "guided": _guided,
    "lora": _lora,
}

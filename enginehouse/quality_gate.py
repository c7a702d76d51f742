"""Quality gate: asks both sides the same prompts, greedily, and compares what they say."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import aiohttp

from engine_builder.errors import BuilderError
from engine_builder.quality.comparison import Answer, Compared, Token, compare
from engine_builder.quality.prompts import Prompt
from engine_builder.quality.report import record
from engine_builder.quality.verdict import Summary, Thresholds, Verdict, judge, summarise
from enginehouse.api import chat
from enginehouse.errors import ApiError, CommandError
from enginehouse.manifests import ManifestFile, apply_files
from enginehouse.targets import Target, engine_of
from model_registry.engines import Engine
from model_registry.manifests import to_yaml

TOP = 5
"""Likeliest tokens that are asked for, where a lane tells them."""
_TIMEOUT_S = 300.0
_BAD_REQUEST = 400
_LEVELS: tuple[dict[str, Any], ...] = ({"logprobs": True, "top_logprobs": TOP}, {"logprobs": True}, {})
"""From most to least that a lane may tell of its tokens."""

Says = Callable[[int, int], None]
"""Takes how many prompts are done, and of how many."""


class Result(NamedTuple):
    """What came of it."""

    found: list[Compared]
    summary: Summary
    verdict: Verdict
    at: datetime.datetime


async def compare_targets(
    baseline: Target,
    candidate: Target,
    prompts: Sequence[Prompt],
    wanted: Thresholds,
    max_tokens: int,
    concurrency: int,
    says: Says,
) -> Result:
    """Both sides asked everything. Raises CommandError, ApiError where one refuses."""
    slots = asyncio.Semaphore(concurrency)
    found: list[Compared | None] = [None] * len(prompts)
    done = 0
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        sides = [await _Side(one, session, max_tokens).probe(prompts[0]) for one in (baseline, candidate)]

        async def one_prompt(place: int, prompt: Prompt) -> None:
            nonlocal done
            async with slots:
                answers = [await side.ask(prompt) for side in sides]
            found[place] = compare(prompt, *answers)
            done += 1
            says(done, len(prompts))

        try:
            async with asyncio.TaskGroup() as group:
                for place, prompt in enumerate(prompts):
                    group.create_task(one_prompt(place, prompt))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first; it has ended the others
    compared = [one for one in found if one is not None]
    summary = summarise(compared)
    try:
        verdict = judge(summary, wanted)
    except BuilderError as error:
        raise CommandError(str(error), error.remedy) from error
    return Result(compared, summary, verdict, datetime.datetime.now(datetime.UTC))


async def keep(candidate: Target, baseline: Target, result: Result) -> str:
    """Store the record with the candidate's engine; its name. Raises CommandError where there is none."""
    fields = await engine_of(candidate)
    if fields is None:
        raise CommandError(
            f"--save: the registry knows no one engine of {candidate.name}",
            "its Deployment must name one (`engine:`), and an admin key is needed",
        )
    kept = record(result.summary, result.verdict, baseline.name, result.at)
    engine = Engine.model_validate(fields).model_copy(update={"quality": kept})
    await apply_files(candidate.connection, [ManifestFile("quality", to_yaml([engine]))], dry_run=False)
    return engine.name


class _Side:
    """One of the two, asked for as much as its lane tells."""

    def __init__(self, target: Target, session: aiohttp.ClientSession, max_tokens: int) -> None:
        self._target = target
        self._session = session
        self._max_tokens = max_tokens
        self._level: dict[str, Any] = {}

    async def probe(self, prompt: Prompt) -> _Side:
        """Find out what its lane tells."""
        for level in _LEVELS:
            self._level = level
            try:
                await self.ask(prompt)
            except ApiError as error:
                if error.status != _BAD_REQUEST or not level or "logprobs" not in error.message:
                    raise
            else:
                break
        return self

    async def ask(self, prompt: Prompt) -> Answer:
        body = {
            "model": self._target.model,
            "messages": list(prompt.messages),
            "temperature": 0,
            "max_tokens": self._max_tokens,
            **self._level,
        }
        try:
            choice = (await chat(self._target.connection, body, self._session))["choices"][0]
            text = choice["message"]["content"] or ""
            logged = choice.get("logprobs") or {}
            tokens = None if not logged.get("content") else tuple(map(_token, logged["content"]))
        except (KeyError, IndexError, TypeError) as error:
            raise CommandError(
                f"an answer of {self._target.name} is no chat completion: {error!r}",
                "is it an OpenAI-compatible server?",
            ) from error
        return Answer(text, str(choice.get("finish_reason")), tokens)


def _token(fields: dict[str, Any]) -> Token:
    others = tuple((one["token"], one["logprob"]) for one in fields.get("top_logprobs") or ())
    return Token(fields["token"], fields["logprob"], others)

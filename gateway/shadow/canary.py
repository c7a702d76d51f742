"""Canary: what clients' own requests tell of a rollout's two sides."""

from __future__ import annotations

from msgspec import Struct, field

from gateway.entry import Entry
from gateway.shadow.heard import counts_as_error
from model_registry.rolling import Rolling
from model_registry.rollout_evidence.evidence import Evidence, Served
from telemetry.request_trace import AttemptTrace

_KINDS = 64
_Kind = tuple[bool, int]


class _Times(Struct):
    """Of one request."""

    ttft_s: float | None
    s_per_token: float | None


class Canary(Struct):
    """Of one worker and one run of a rollout.

    Requests of the two sides are not the same, so each of the candidate's is held against the latest of the
    stable deployment that was of its kind: streamed or not, and of about the same prompt. No request is used
    twice, so that the pairs are independent of each other.
    """

    latest: dict[_Kind, _Times] = field(default_factory=dict)

    def saw(self, entry: Entry, rolling: Rolling, evidence: Evidence) -> None:
        """A client's request is over."""
        sides = [rolling.side(_deployment(attempt)) for attempt in entry.trace.attempts]
        evidence.requests += 1
        evidence.exposed += "candidate" in sides
        if rolling.status.phase != "canary":
            return
        step = evidence.step(rolling.status.step)
        for attempt, side in zip(entry.trace.attempts, sides, strict=True):
            self._count(step, attempt, side)
        if len(sides) == 1 and entry.trace.attempts[0].error is None and entry.status == 200:
            self._compare(step, entry, sides[0], _crosses(rolling))

    def _count(self, step: Served, attempt: AttemptTrace, side: str | None) -> None:
        if attempt.end_ns is None or side is None:
            return
        if attempt.error is None or counts_as_error(attempt.error):
            trials = step.candidate if side == "candidate" else step.stable
            trials.add(attempt.error is not None)

    def _compare(self, step: Served, entry: Entry, side: str | None, crosses: bool) -> None:
        times = _times(entry, crosses)
        streamed = entry.api is not None and entry.api.stream
        kind = streamed, (entry.usage.prompt_tokens or 0).bit_length()
        if side == "stable":
            if len(self.latest) < _KINDS or kind in self.latest:
                self.latest[kind] = times
        elif side == "candidate" and (beside := self.latest.pop(kind, None)) is not None:
            if times.ttft_s and beside.ttft_s:
                step.ttft.add(times.ttft_s / beside.ttft_s)
            if times.s_per_token and beside.s_per_token:
                step.pace.add(times.s_per_token / beside.s_per_token)


def _times(entry: Entry, crosses: bool) -> _Times:
    """Where the sides are of different kinds, a first token is not the same thing for both."""
    attempt, tokens = entry.trace.attempts[0], entry.usage.completion_tokens or 0
    if attempt.end_ns is None or tokens < 1:
        return _Times(None, None)
    total_s = (attempt.end_ns - attempt.start_ns) / 1e9
    streamed = entry.api is not None and entry.api.stream
    if crosses or not streamed or attempt.first_token_ns is None:
        return _Times(None, total_s / tokens)
    ttft_s = (attempt.first_token_ns - attempt.start_ns) / 1e9
    return _Times(ttft_s, (total_s - ttft_s) / (tokens - 1) if tokens > 1 else None)


def _crosses(rolling: Rolling) -> bool:
    """Whether one side speaks OpenAI and the other one does not."""
    kinds = {one.lane == "openai-http" for one in (*rolling.candidate, *rolling.stable())}
    return len(kinds) > 1


def _deployment(attempt: AttemptTrace) -> str:
    return attempt.endpoint.partition("@")[0]

"""Accounts: what is counted and traced of every request, once, whatever its ending."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import cast

from msgspec.json import encode
from opentelemetry.util.types import AttributeValue

from gateway.entry import Entry
from gateway.streaming.choices import Choice
from model_registry.entities import Endpoint
from router.profiles import Wish
from telemetry import names
from telemetry.metric_labels import AttemptOutcome, CancelPhase, Outcome, RefusalReason, outcome_of
from telemetry.metrics import Metrics


class Accounts:
    """Writes finished requests and attempts into metrics and traces."""

    def __init__(self, metrics: Metrics, capture_content: bool = False) -> None:
        self._metrics = metrics
        self._capture_content = capture_content
        self.begun = metrics.started
        """A request begins; `finished` follows exactly once."""

    def stream_begins(self) -> None:
        """An answer is being streamed; `stream_ends` follows exactly once."""
        self._metrics.open_streams += 1

    def stream_ends(self) -> None:
        """It is not streamed any more, however that ended."""
        self._metrics.open_streams -= 1

    def attempt(self, endpoint: Endpoint, outcome: str) -> None:
        self._metrics.attempt(endpoint.name, cast("AttemptOutcome", outcome))

    def retried(self, wish: Wish) -> None:
        self._metrics.retried(wish.name, wish.profile)

    def continued(self, wish: Wish) -> None:
        self._metrics.migrated(wish.name, wish.profile)

    def queued(self, wish: Wish, tokens: int) -> None:
        self._metrics.queued(wish.name, wish.profile, tokens)

    def unqueued(self, wish: Wish, tokens: int, waited_s: float) -> None:
        self._metrics.unqueued(wish.name, wish.profile, tokens, waited_s)

    def first_token(self, wish: Wish, *, late: bool) -> None:
        self._metrics.first_token(wish.name, wish.profile, late=late)

    def refused(self, wish: Wish, reason: str) -> None:
        self._metrics.refused(wish.name, wish.profile, cast("RefusalReason", reason))

    def finished(self, entry: Entry) -> None:
        """The single finish of a request."""
        now_s = monotonic()
        unseen = _is_unseen(entry)
        prompt, completion = (0, 0) if unseen else _tokens(entry)
        first_s = entry.first_token_s
        wish = entry.wish
        if entry.reservation is not None:
            entry.reservation.settle(prompt + completion, begun=not unseen)
        if entry.client_left:
            entry.status = 499
            entry.error_type = "client_left"
            self._metrics.cancelled(_phase(entry, first_s))
        self._metrics.finish(
            wish.name if wish else None,
            wish.profile if wish else None,
            _outcome(entry),
            duration_s=now_s - entry.started_s,
            ttft_s=first_s - entry.started_s if first_s is not None else None,
            itl_s=(now_s - first_s) / (completion - 1) if first_s is not None and completion > 1 else None,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cold=entry.cold,
        )
        for one in entry.finished:
            if wish is not None and (engine := one.usage.engine) is not None:
                self._metrics.engine(wish.name, wish.profile, engine.queue_s, engine.prefill_s)
        entry.trace.finish(
            entry.status, entry.error_type, lambda: self._attributes(entry, prompt, completion)
        )

    def _attributes(self, entry: Entry, prompt: int, completion: int) -> Mapping[str, AttributeValue | None]:
        """Asked for only where the trace is kept."""
        attributes = _attributes(entry, prompt, completion)
        return {**attributes, **_content(entry)} if self._capture_content else attributes


_UNSEEN = frozenset({"unsupported", "refused", "busy", "unreachable"})
"""Outcomes of attempts whose engine has not begun with the request."""


def _tokens(entry: Entry) -> tuple[int, int]:
    """Prompt and completion tokens; for an answer that broke or was left, what was generated until then."""
    if entry.finished:
        return entry.usage.prompt_tokens or 0, entry.usage.completion_tokens or 0
    generated = sum(_generated(choice) for choice in entry.choices)
    return entry.usage.prompt_tokens or 0, generated


def _is_unseen(entry: Entry) -> bool:
    """No engine has begun with it."""
    for attempt in entry.trace.attempts:  # noqa: SIM110  every request pays for a generator
        if attempt.error not in _UNSEEN:
            return False
    return True


def _generated(choice: Choice) -> int:
    """Tokens of an answer without its end; of relayed bytes, the events after the one with the role."""
    if choice.relayed_events:
        return max(0, choice.relayed_events - 1)
    return choice.assembler.completion_tokens() if choice.assembler is not None else 0


def _outcome(entry: Entry) -> Outcome:
    if entry.client_left:
        return "cancelled"
    if entry.error_type is not None and entry.status == 200:
        return "broken"
    return outcome_of(entry.status)


def _phase(entry: Entry, first_token_s: float | None) -> CancelPhase:
    """How far a request had come when its client left."""
    if not entry.routed:
        return "parse"
    if not entry.trace.attempts:
        return "queue"
    if first_token_s is not None:
        return "stream"
    return "first_token" if entry.trace.attempts[-1].answered_ns is not None else "connect"


def _attributes(entry: Entry, prompt: int, completion: int) -> Mapping[str, AttributeValue | None]:
    """What a kept trace says of the request; never what was written or answered."""
    api, wish, end = entry.api, entry.wish, entry.finished[0] if entry.finished else None
    sampling = api.sampling if api else None
    return {
        names.OPERATION_NAME: entry.operation.name,
        names.PROVIDER_NAME: "enginehouse",
        names.REQUEST_MODEL: wish.name if wish else None,
        names.RESPONSE_MODEL: wish.name if wish and end else None,
        names.RESPONSE_ID: entry.request_id,
        names.REQUEST_STREAM: api.stream if api else None,
        names.REQUEST_MAX_TOKENS: api.max_tokens if api else None,
        names.REQUEST_CHOICE_COUNT: api.n if api and api.n > 1 else None,
        names.REQUEST_TEMPERATURE: sampling.temperature if sampling else None,
        names.REQUEST_TOP_P: sampling.top_p if sampling else None,
        names.REQUEST_TOP_K: sampling.top_k if sampling else None,
        names.REQUEST_FREQUENCY_PENALTY: sampling.frequency_penalty if sampling else None,
        names.REQUEST_PRESENCE_PENALTY: sampling.presence_penalty if sampling else None,
        names.REQUEST_SEED: sampling.seed if sampling else None,
        names.USAGE_INPUT_TOKENS: prompt,
        names.USAGE_OUTPUT_TOKENS: completion,
        names.USAGE_CACHED_TOKENS: entry.usage.cached_tokens,
        names.RESPONSE_FINISH_REASONS: _finish_reasons(entry),
        names.HTTP_REQUEST_METHOD: "POST",
        names.HTTP_ROUTE: entry.operation.path,
        names.REQUEST_ID: entry.request_id,
        names.TENANT: entry.identity.tenant.name if entry.identity else None,
        names.PROFILE: wish.profile if wish else None,
        names.ADAPTER: wish.adapter.name if wish and wish.adapter else None,
        names.DEPLOYMENT: end.endpoint.deployment if end else None,
        names.ENDPOINT: end.endpoint.name if end else None,
        names.LANE: end.endpoint.lane if end else None,
        names.ATTEMPTS: sum(one.attempts for one in entry.finished) or None,
        names.MIGRATED: any(one.continued for one in entry.finished) or None,
        names.COLD: entry.cold or None,
        names.CANCELLED_BY: "client" if entry.client_left else "gateway" if entry.cut else None,
    }


def _finish_reasons(entry: Entry) -> list[str] | None:
    """None for what generates nothing."""
    if entry.api is None:
        return None
    return [one.reason or "stop" for one in entry.finished] or None


def _content(entry: Entry) -> Mapping[str, AttributeValue | None]:
    """What was written and answered, for operators who switched it on."""
    if entry.api is None:
        return {}
    said = [choice.assembler.said() for choice in entry.choices if choice.assembler is not None]
    return {
        names.INPUT_MESSAGES: encode(entry.api.messages or entry.api.prompts).decode(),
        names.OUTPUT_MESSAGES: encode(said).decode() if said else None,
    }

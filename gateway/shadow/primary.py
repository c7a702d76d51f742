"""Primary: what a client was answered, and whether that is worth a copy."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.entry import Entry
from gateway.shadow.heard import Heard, text_of, upstream_text
from gateway.shadow.watched import Watched
from inference.request import InferenceRequest, Sampling
from model_registry.entities import Endpoint


def why_not(entry: Entry, watched: Watched) -> str | None:
    """Why a request is not copied, whatever room there is."""
    finished = entry.finished
    if entry.status != 200 or entry.error_type is not None or not finished:
        return "not_answered"
    if watched.inputs:
        return None if _served_by_stable(entry, watched) else "served_elsewhere"
    if entry.api is None:
        return "relayed_embeddings"
    if len(watched.requests) != 1 or len(finished) != 1 or entry.api.answers != 1:
        return "several_answers"
    if watched.requests[0].lora is not None:
        return "adapter"
    if entry.identity is not None and entry.identity.policy.isolation_class:
        return "isolated_kv"
    if not _served_by_stable(entry, watched):
        return "served_elsewhere"
    if entry.wish is None or entry.wish.profile != watched.rolling.profile:
        return "other_profile"
    relayed = finished[0].endpoint.lane == "openai-http"
    return "translated" if relayed and not watched.requests[0].relay else None


def _served_by_stable(entry: Entry, watched: Watched) -> bool:
    return all(watched.rolling.side(one.endpoint.deployment) == "stable" for one in entry.finished)


def copy_of(request: InferenceRequest) -> InferenceRequest:
    """The same question, of a name and a trace of its own."""
    return replace(request, id=f"{request.id}-copy", traceparent=None, tracestate=None, relay=True)


def heard_by_client(entry: Entry, watched: Watched) -> Heard:
    finished, choice = entry.finished[0], entry.choices[0]
    text, reason = said(choice, getattr(choice, "body", None) or b"".join(watched.relayed), watched)
    reason = reason or finished.reason or ending(choice, watched.requests[0])
    tokens, total_s, ttft_s = entry.usage.completion_tokens, None, None
    attempts = entry.trace.attempts
    if len(attempts) == 1 and (end_ns := attempts[0].end_ns) is not None:
        begin_ns, first_ns = attempts[0].start_ns, attempts[0].first_token_ns
        total_s = (end_ns - begin_ns) / 1e9
        streamed = watched.requests[0].stream and finished.endpoint.lane != "openai-http"
        ttft_s = (first_ns - begin_ns) / 1e9 if streamed and first_ns is not None else None
    return Heard(text, reason, tokens, total_s, ttft_s)


def said(choice: object, relayed: bytes, watched: Watched) -> tuple[str | None, str | None]:
    """Text and, where an upstream told it, the finish reason."""
    if relayed:
        told = upstream_text(relayed)
        return (None, None) if told is None else told
    assembler, make = getattr(choice, "assembler", None), watched.assembling.make
    if assembler is None or make is None:
        return None, None
    stopped = "stop" if assembler.stopped else None
    return text_of(assembler, make, watched.assembling.parser()), stopped


def ending(choice: object, request: InferenceRequest) -> str:
    assembler = getattr(choice, "assembler", None)
    return "stop" if assembler is None else str(assembler.ending(request.max_tokens))


def repeats(entry: Entry, endpoint: Endpoint) -> bool:
    """Whether the copy should have the client's answer: a seed means the same to engines of one kind only."""
    sampling = Sampling() if entry.api is None else entry.api.sampling
    if sampling.temperature == 0 or sampling.top_k == 1:
        return True
    return sampling.seed is not None and endpoint.lane == entry.finished[0].endpoint.lane

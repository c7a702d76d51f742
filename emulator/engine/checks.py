"""What a request must fulfil before it is queued; pure, and every refusal names the field."""

from __future__ import annotations

from emulator.engine.api import EngineRequest, SamplingParams, TokenIds
from emulator.engine.errors import InvalidRequestError, RequestTooLongError


def check_request(request: EngineRequest, vocab: int, max_input_len: int) -> None:
    """Raises RequestTooLongError or InvalidRequestError; returns when the request may be queued."""
    length = len(request.input_ids)
    if length > max_input_len:
        raise RequestTooLongError(length, max_input_len)
    if length < 1:
        raise InvalidRequestError("input_ids must hold at least one token")
    if not _known(request.input_ids, vocab):
        raise InvalidRequestError(f"input_ids must lie between 0 and {vocab - 1}")
    if request.max_tokens < 1:
        raise InvalidRequestError(f"max_tokens must be at least 1, got {request.max_tokens}")
    if request.embedding_bias is not None and request.embedding_bias.shape != (vocab,):
        raise InvalidRequestError(f"embedding_bias must have shape ({vocab},)")
    for field, words in (("stop_words", request.stop_words), ("bad_words", request.bad_words)):
        if not all(word and _known(word, vocab) for word in words):
            raise InvalidRequestError(f"{field} must be non-empty lists of ids between 0 and {vocab - 1}")
    _check_sampling(request.sampling)


def _known(ids: TokenIds, vocab: int) -> bool:
    return min(ids) >= 0 and max(ids) < vocab


def _check_sampling(sampling: SamplingParams) -> None:
    if not sampling.temperature >= 0:
        raise InvalidRequestError(f"temperature must not be negative, got {sampling.temperature}")
    if not sampling.repetition_penalty > 0:
        raise InvalidRequestError(f"repetition_penalty must be above 0, got {sampling.repetition_penalty}")
    if not 0 <= sampling.min_p <= 1:
        raise InvalidRequestError(f"min_p must be between 0 and 1, got {sampling.min_p}")
    for field in ("top_k", "min_tokens", "seed"):
        value = getattr(sampling, field)
        if value is not None and value < 0:
            raise InvalidRequestError(f"{field} must not be negative, got {value}")

"""One Triton request at the vLLM backend's model: deltas of text and counts, and how they are sent.

That its client left the real backend sees only after a response was sent, or before it would send the
only one; then the engine is told to stop.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import Engine, EngineOutput, Guide, RequestTooLongError
from emulator.engine.api import TopLogProbs
from emulator.engine.errors import GuideError
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.calls import OpenCall
from emulator.triton.tensors import error_response, string_tensor
from emulator.triton.vllm_request import VllmOptions

ERROR = "Error generating stream: "
CANCELLED = "Request was cancelled"
_UNGUIDED = {
    "json": "Failed to transform json schema into a grammar: {}",
    "json_schema": "Failed to transform json schema into a grammar: {}",
    "regex": "Failed to transform regex into a grammar: {}",
    "ebnf_grammar": "Invalid grammar specification.",
}
"""What vLLM says of guides that it cannot read."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class VllmCall(OpenCall):
    """Open until the last response; one for every step when streaming."""

    def __init__(
        self,
        sender: Any,
        engine_id: str,
        options: VllmOptions,
        prompt_tokens: int,
        tokenizer: EngineTokenizer,
        engine: Engine,
        guide: Guide | None = None,
    ) -> None:
        super().__init__(sender, "")
        self._engine_id = engine_id
        self._options = options
        self._prompt_tokens = prompt_tokens
        self._tokenizer = tokenizer
        self._engine = engine
        self._guide = guide
        self._tokens: list[int] = []
        self._logprobs: list[dict[str, Any]] = []
        self._cum_log_prob = 0.0
        self._sent_characters = self._sent_tokens = 0
        self._over = False
        self._left = False

    def cancel(self) -> None:
        self._over = True
        self._engine.cancel(self._engine_id)

    def on_output(self, output: EngineOutput) -> None:
        """News from the engine, or from a refused submission."""
        if self._over:
            return
        if output.error is not None:
            self.send(error_response(ERROR + self._words(output.error)), final=True)
            return
        self._take(output)
        text, stop = self._text(output.finish_reason == "stop")
        reason = "stop" if stop else output.finish_reason
        if output.final and reason is None:  # the engine stopped without an end: nothing more ever comes
            self.send(None, final=True)
        elif self._is_abandoned():
            self._abort(text, reason)
        elif reason is not None or self._options.streaming:
            self._answer(text, reason, output)
        if stop and not output.final:
            self.cancel()

    def _is_abandoned(self) -> bool:
        return self._left if self._options.streaming else self.client_left()

    def _abort(self, text: str, reason: str | None) -> None:
        """A stream ends with an error; a whole answer is sent as far as it is."""
        self.cancel()
        if self._options.streaming:
            self.send(error_response(CANCELLED, pb_utils.TritonError.CANCELLED), final=True)
        else:
            self.send(self._response(text, reason), final=True)

    def _answer(self, text: str, reason: str | None, output: EngineOutput) -> None:
        if output.fault == "wrong_tensor":
            wrong = pb_utils.Tensor("text_output", np.full((1, 3), 0.5, np.float32))
            self.send(pb_utils.InferenceResponse([wrong]), final=reason is not None)
            return
        self.send(self._response(text, reason), final=reason is not None)
        self._left = self.client_left()

    def _take(self, output: EngineOutput) -> None:
        self._tokens += output.token_ids
        self._cum_log_prob = output.cum_log_prob
        tops = output.top_log_probs or [()] * len(output.token_ids)
        for token, log_prob, top in zip(output.token_ids, output.log_probs or (), tops, strict=False):
            self._logprobs.append(self._entry(token, log_prob, top))

    def _entry(self, token: int, log_prob: float, top: TopLogProbs) -> dict[str, Any]:
        """The chosen token first, then the likeliest ones that it is not among."""
        ranks = {number: rank for rank, (number, _) in enumerate(top, start=1)}
        chosen = {token: {"logprob": log_prob, "rank": ranks.get(token, len(top) + 1)}}
        others = {number: {"logprob": value, "rank": ranks[number]} for number, value in top}
        return {
            str(number): {**entry, "decoded_token": self._tokenizer.decode([number], False)}
            for number, entry in (chosen | others).items()
        }

    def _text(self, ended: bool) -> tuple[str, bool]:
        """The text so far, and whether a stop string ended it; `ended`: a token did, which is not shown."""
        shown = self._tokens[:-1] if ended and not self._options.keeps_stop else self._tokens
        text = self._tokenizer.decode(shown, self._options.skips_special)
        found = [(text.index(stop), stop) for stop in self._options.stops if stop in text]
        if not found:
            return text, False
        place, stop = min(found)
        return text[: place + len(stop)] if self._options.keeps_stop else text[:place], True

    def _response(self, text: str, reason: str | None) -> Any:
        options, flags = self._options, self._options.flags
        seen = text if reason is not None else self._certain(text)
        new = seen[self._sent_characters :] if options.streaming else seen
        tokens = len(self._tokens) - self._sent_tokens
        self._sent_characters = max(len(seen), self._sent_characters)
        tensors = [string_tensor("text_output", [options.prompt + new if options.echo else new])]
        if "return_finish_reason" in flags:
            tensors.append(string_tensor("finish_reason", [str(reason)]))
        if "return_cumulative_logprob" in flags:
            cumulative = np.array([self._cum_log_prob], np.float32)
            tensors.append(pb_utils.Tensor("cumulative_logprob", cumulative))
        if "return_logprobs" in flags:
            newest = self._logprobs[self._sent_tokens :]
            shown = "null" if options.logprobs is None else json.dumps(newest)
            tensors.append(string_tensor("logprobs", [shown]))
        if "return_num_input_tokens" in flags:
            # A scalar, whatever the configuration says: as the real backend sends it.
            tensors.append(pb_utils.Tensor("num_input_tokens", np.asarray(self._prompt_tokens, np.uint32)))
        if "return_num_output_tokens" in flags:
            tensors.append(pb_utils.Tensor("num_output_tokens", np.array([tokens], np.uint32)))
        self._sent_tokens = len(self._tokens)
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _words(self, error: Exception) -> str:
        if isinstance(error, RequestTooLongError):
            return (
                f"The decoder prompt (length {error.length}) is longer than the maximum model length of "
                f"{self._engine.max_seq_len}. Make sure that `max_model_len` is no smaller than the number "
                "of text tokens."
            )
        if isinstance(error, GuideError) and self._guide is not None:
            return _UNGUIDED[self._guide.kind].format(error.reason)
        return str(error)

    def _certain(self, text: str) -> str:
        """Without half a character, and without what may be the beginning of a stop string."""
        whole = text.rstrip(_REPLACEMENT)
        stops = () if self._options.keeps_stop else self._options.stops
        held = max((len(stop) - 1 for stop in stops), default=0)
        return whole[: max(0, len(whole) - held)]

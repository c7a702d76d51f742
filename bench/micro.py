"""What each step of the hot path costs, in process: `python -m bench.micro [--quick]`.

Runs the gateway's own code on one request of the benchmark. Every step is checked once for its result; a step
that is gone or answers something else fails the run. Times are not judged.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import bodies, campaign, tokenizer, triton_schema
from bench.build import BenchError
from gateway.api.answers import ChatStream
from gateway.api.json_body import BodyLimits
from gateway.api.requests import parse_chat
from gateway.streaming.choices import StreamedChoice
from gateway.streaming.text import Assembler
from inference.http_chunks import framed
from inference.lanes import lane_of
from inference.request import InferenceRequest, Usage
from inference.schema import recognise
from inference.segments import SegmentCache
from inference.tokenizer import ModelTokenizer
from inference.triton_http import TritonHttp
from model_registry.entities import Endpoint, Model
from model_registry.knobs import knobs_of
from model_registry.snapshot import Snapshot, Stored
from model_registry.tenants import ApiKey, Tenant
from router.config import RouterConfig
from router.deciding import Deciding
from router.pick import pick
from router.profiles import resolve
from telemetry.config import TelemetryConfig
from telemetry.metrics import Metrics
from telemetry.tracing import Tracing
from tenancy.keys import authenticate

MODEL = "house"
KEY = "eh-micro-benchmark"
HEADER = f"Bearer {KEY}"
EVENTS_PER_CALL = 200


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work; `run` does it `per_call` times, `check` says whether its result is right."""

    name: str
    run: Callable[[], object]
    check: Callable[[Any], bool]
    per_call: int = 1


class Wire:
    """Stands where the connections are: keeps the message sent, and who takes the answer."""

    authority = "127.0.0.1:8000"
    message = b""
    receiver: Any = None

    def start(self, message: bytes, receiver: Any, *_: object) -> Wire:
        self.message, self.receiver = message, receiver
        return self

    def cancel(self) -> None: ...


@dataclass(slots=True)
class Client:
    """Stands where the client's transport is: counts the events that would be written."""

    begun: bool = False
    events: list[bytes] = field(default_factory=list)

    def begin(self) -> None:
        self.begun = True

    def push(self, event: bytes) -> None:
        self.events.append(event)

    def flush(self) -> None:
        self.events = self.events[-1:]


def steps(folder: Path, tracing: Tracing) -> list[Step]:
    """Every step, in the order in which a request meets them."""
    model = ModelTokenizer.load(tokenizer.write(folder / "tokenizer"))
    snapshot = _snapshot()
    api = parse_chat(_body(), BodyLimits())
    assert api.messages is not None
    rendered, prompt_ids = model.encode_chat(api.messages)
    request = InferenceRequest("one-0", MODEL, True, 100, prompt_ids=prompt_ids, end_id=model.end_id)
    return [
        Step(
            "parse a 1 KB chat body",
            lambda: parse_chat(_BODY, BodyLimits()),
            lambda seen: seen.model == MODEL,
        ),
        Step(
            "authenticate", lambda: authenticate(snapshot, HEADER), lambda seen: seen.tenant.name == "bench"
        ),
        Step(
            "route: resolve and pick one of 4",
            _routing(snapshot, request),
            lambda seen: seen.endpoint is not None,
        ),
        Step("chat template", lambda: model.render(api.messages or []), lambda seen: len(seen) > 800),
        Step("encode a new chat", _encoding_anew(model, rendered), lambda seen: seen == prompt_ids),
        Step(
            "encode a chat whose last message is new",
            _encoding_next_turns(model, rendered),
            lambda seen: len(seen) > 100,
        ),
        Step("lane: encode a Triton request", _sending(request), lambda seen: b"input_ids" in seen),
        Step(
            "per token: event to delta",
            _reading(request, model),
            lambda seen: b" t0" in seen,
            EVENTS_PER_CALL,
        ),
        Step(
            "an answer's end, with its engine's own times",
            _ending(request),
            lambda seen: seen is not None and seen.engine is not None and seen.cached_tokens == 64,
        ),
        Step("trace: begin to finish", _tracing(tracing), lambda seen: seen is None),
        Step("metrics: begin to finish", _metrics(), lambda seen: seen is None),
    ]


def _body() -> bytes:
    return json.dumps(bodies.chat(MODEL, stream=True, tokens=100)).encode()


_BODY = _body()


def _snapshot() -> Snapshot:
    endpoints = [
        Endpoint(
            name=f"house@127.0.0.1:{8000 + n}",
            deployment=MODEL,
            model=MODEL,
            profile="latency" if n % 2 else "balanced",
            lane="tensorrt_llm",
            target="tensorrt_llm",
            http=f"http://127.0.0.1:{8000 + n}",
            state="ready",
        )
        for n in range(4)
    ]
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    known: list[Stored] = [Tenant(name="bench"), ApiKey(name="bench", tenant="bench", sha256=digest)]
    return Snapshot.of(1, [Model(name=MODEL, context_length=4096), *known, *endpoints])


def _routing(snapshot: Snapshot, request: InferenceRequest) -> Callable[[], object]:
    deciding, endpoints = Deciding(RouterConfig()), snapshot.endpoints[MODEL]

    def route() -> object:
        wish, now_s = resolve(snapshot, MODEL, None, None), time.monotonic()
        asked = deciding.ask(request, 300, "bench", endpoints)
        choices = deciding.candidates(MODEL, endpoints, None, asked, now_s)
        knobs = knobs_of(wish.profile)
        policy = deciding.policy(MODEL, wish.profile, knobs)
        decision = pick(wish.profile, knobs, policy, asked, choices, set(), now_s)
        assert decision.endpoint is not None
        deciding.dispatch(MODEL, decision.endpoint, asked, policy, now_s)
        return decision

    return route


def _encoding_anew(model: ModelTokenizer, text: str) -> Callable[[], object]:
    """With nothing remembered."""
    assert model.segments is not None
    segments = model.segments

    def encode() -> list[int]:
        segments.cache = SegmentCache()
        return model.encode_rendered(text)

    return encode


def _encoding_next_turns(model: ModelTokenizer, text: str) -> Callable[[], object]:
    """With the history remembered, and a last message that nobody has sent before."""
    numbers = count(time.time_ns())
    before, after = text.split(bodies.NUMBER)

    def encode() -> list[int]:
        return model.encode_rendered(f"{before}{next(numbers) % 10**16:016d}{after}")

    return encode


def _triton(wire: Wire) -> TritonHttp:
    described = triton_schema.metadata("tensorrt_llm"), triton_schema.config("tensorrt_llm")
    pool: Any = wire
    return TritonHttp(pool, "tensorrt_llm", lane_of(recognise(*described)))


def _sending(request: InferenceRequest) -> Callable[[], object]:
    wire, sink = Wire(), _choice(Client(), None)
    client = _triton(wire)

    def send() -> bytes:
        client.start(request, sink)
        return wire.message

    return send


def _choice(client: Client, model: ModelTokenizer | None) -> StreamedChoice:
    response: Any = client
    events = ChatStream("chatcmpl-0123456789abcdef", 1_700_000_000, MODEL)
    assembler = Assembler(model, (), log_probs=False) if model is not None else None
    return StreamedChoice(0, assembler, events, response)


def _reading(request: InferenceRequest, model: ModelTokenizer) -> Callable[[], object]:
    """An HTTP chunk as a connection receives it -> bytes as the client's connection is given them."""
    event = (
        b'data: {"id":"one-0","model_name":"tensorrt_llm","model_version":"1",'
        b'"output_ids":%d,"sequence_length":1}\n\n' % (tokenizer.ID_BASE + 77)
    )

    chunk = framed(event)
    wire = Wire()
    triton = _triton(wire)

    def read() -> bytes:
        client = Client()
        triton.start(request, _choice(client, model))
        receiver = wire.receiver
        receiver.head(200)
        for _ in range(EVENTS_PER_CALL):
            receiver.chunk(chunk)
        return client.events[-1]

    return read


def _ending(request: InferenceRequest) -> Callable[[], object]:
    """The last response as it comes, which alone is read in full -> usage."""
    described = triton_schema.metadata("tensorrt_llm"), triton_schema.config("tensorrt_llm")
    lane = lane_of(replace(recognise(*described), tokens_per_block=32))
    times = ("arrival", "first_scheduled", "first_token", "last_token")
    told = {f"{name}_time_ns": 10**15 + number for number, name in enumerate(times)}
    last = {"output_ids": request.end_id, "sequence_length": 1, "kv_cache_reused_blocks": 2, **told}
    payload = json.dumps(last).encode()

    class End:
        usage: Usage | None = None

        def tokens(self, *_: object) -> None: ...

        def end(self, _reason: object, usage: Usage, *_: object) -> None:
            self.usage = usage

    def read() -> object:
        end: Any = End()
        reader: Any = lane.reader(request, end)
        reader.payload(payload)
        reader.finish()
        return end.usage

    return read


def _tracing(tracing: Tracing) -> Callable[[], object]:
    def trace() -> None:
        kept = tracing.begin(None, None)
        kept.route_finished(kept.route_started(), reason="profile")
        attempt = kept.attempt("house@127.0.0.1:8000", "tensorrt_llm", "tensorrt_llm")
        attempt.answered()
        attempt.first_token()
        attempt.finished(None)
        kept.finish(200, None, lambda: {"gen_ai.request.model": MODEL})

    return trace


def _metrics() -> Callable[[], object]:
    metrics = Metrics()

    def count() -> None:
        metrics.started()
        metrics.finish(
            MODEL, "balanced", "ok", duration_s=1.0, ttft_s=0.1, prompt_tokens=200, completion_tokens=100
        )

    return count


def measure(step: Step, batch_s: float, batches: int) -> float:
    """Microseconds of one operation, in the least disturbed of `batches` batches. Raises BenchError."""
    result = step.run()
    if not step.check(result):
        raise BenchError(f"{step.name}: unexpected result {result!r:.200}")
    began = time.perf_counter()
    step.run()
    calls = max(1, int(batch_s / max(time.perf_counter() - began, 1e-7)))
    best_s = float("inf")
    for _ in range(batches):
        began = time.perf_counter()
        for _ in range(calls):
            step.run()
        best_s = min(best_s, time.perf_counter() - began)
    return best_s / calls / step.per_call * 1e6


def main() -> int:
    parser = campaign.parser(__doc__, "python -m bench.micro --quick")
    parser.add_argument("--quick", action="store_true", help="a few seconds in all")
    options = parser.parse_args()
    return campaign.concluded(lambda: measured(quick=options.quick))


def measured(*, quick: bool) -> dict[str, Any]:
    """µs by step, printed too. Raises BenchError for a step that is gone or answers something else."""
    batch_s, batches = (0.02, 3) if quick else (0.2, 7)
    table = Table(title="Hot path", title_justify="left")
    table.add_column("step")
    table.add_column("µs", justify="right")
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="enginehouse-micro-") as name:
        folder = Path(name)
        tracing = Tracing(TelemetryConfig(exporter="file", trace_file=folder / "traces.jsonl"))
        try:
            for step in steps(folder, tracing):
                results[step.name] = round(measure(step, batch_s, batches), 3)
                table.add_row(step.name, f"{results[step.name]:,.2f}")
        finally:
            tracing.close()  # it writes into the folder until then
    Console().print(table)
    return {"ok": True, "us": results}


if __name__ == "__main__":
    sys.exit(main())

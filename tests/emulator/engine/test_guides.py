"""Guided decoding: what the shipped models write under a schema, an expression or a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from emulator.engine import (
    Engine,
    EngineLimits,
    Guide,
    GuideError,
    RejectedRequestError,
    SamplingParams,
    Weights,
)
from emulator.engine.guides import KEPT_GRAMMARS, Guides
from emulator.engine.tokenizer import EngineTokenizer

from .conftest import GREEDY, Client, MakeClient, poll

MODELS = Path(__file__).parents[3] / "emulator" / "models"
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "population": {"type": "integer"},
        "area": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["town", "capital"]},
        "more": {"type": "object"},
        "where": {"$ref": "#/$defs/place"},
    },
    "required": ["city", "population", "area", "tags", "kind", "more", "where"],
    "$defs": {"place": {"type": "object", "properties": {"north": {"type": "boolean"}}}},
}
MOST_TOKENS = 400


class Speaker:
    """One shipped model that follows guides."""

    def __init__(self, name: str) -> None:
        folder = MODELS / name
        self.tokenizer = EngineTokenizer(folder)
        weights = Weights.load(folder)
        self.guides = Guides(folder, weights.config)
        limits = EngineLimits(kv_blocks=256)
        self.client = Client(Engine(weights, limits, guides=self.guides))
        self.client.engine.start()

    def prompt(self, text: str) -> list[int]:
        rendered = self.tokenizer.render_chat([{"role": "user", "content": text}])
        return self.tokenizer.encode(rendered, add_special_tokens=False)

    def send(self, name: str, text: str, guide: Guide | None, **fields: object) -> None:
        fields.setdefault("end_id", self.tokenizer.eos_id)
        self.client.send(name, self.prompt(text), MOST_TOKENS, guide=guide, **fields)

    def text(self, name: str) -> str:
        (tokens,) = self.client.finish(name)
        return self.tokenizer.decode(tokens)


@pytest.fixture(scope="module", params=["house-chat", "depot-chat"])
def speaker(request: pytest.FixtureRequest) -> Iterator[Speaker]:
    made = Speaker(request.param)
    yield made
    made.client.engine.close()
    assert made.client.engine.stats().kv_used_blocks == 0


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "speaker" in request.fixturenames:
        request.getfixturevalue("speaker").client.outputs.clear()


@pytest.mark.parametrize("sampling", [GREEDY, *(SamplingParams(seed=seed) for seed in range(4))])
def test_a_schema_is_followed_to_its_end(speaker: Speaker, sampling: SamplingParams) -> None:
    speaker.send("r", "Where is Paris?", Guide("json_schema", json.dumps(SCHEMA)), sampling=sampling)
    jsonschema.validate(json.loads(speaker.text("r")), SCHEMA)
    assert speaker.client.last("r").finish_reason == "stop"


@pytest.mark.parametrize("seed", range(4))
def test_json_without_a_schema_is_an_object_or_an_array(speaker: Speaker, seed: int) -> None:
    speaker.send("r", "Hello!", Guide("json"), sampling=SamplingParams(seed=seed))
    assert isinstance(json.loads(speaker.text("r")), dict | list)
    assert speaker.client.last("r").finish_reason == "stop"


@pytest.mark.parametrize(
    ("guide", "pattern"),
    [
        (Guide("regex", "[0-9]{3}-[a-f]{2}"), r"\d{3}-[a-f]{2}"),
        (Guide("ebnf_grammar", 'root ::= item item\nitem ::= "tea" | "coal"'), "(tea|coal){2}"),
    ],
)
def test_expressions_and_grammars_are_followed(speaker: Speaker, guide: Guide, pattern: str) -> None:
    speaker.send("r", "Hello!", guide)
    assert re.fullmatch(pattern, speaker.text("r"))


def test_guided_and_unguided_requests_share_a_batch_without_minding_each_other(speaker: Speaker) -> None:
    """Each answers as it does alone, token for token."""
    guides = [
        None,
        Guide("regex", "[0-9]{8}"),
        Guide("json_schema", json.dumps(SCHEMA)),
        Guide("json"),
        None,
        Guide("regex", "(yes|no)"),
    ]
    alone = []
    for number, guide in enumerate(guides):
        speaker.send(f"alone-{number}", f"Count from 1 to {number + 2}.", guide)
        alone.append(speaker.text(f"alone-{number}"))
    for number, guide in enumerate(guides):
        speaker.send(f"r{number}", f"Count from 1 to {number + 2}.", guide)
    assert [speaker.text(f"r{number}") for number in range(len(guides))] == alone


def test_a_cancelled_guided_request_ends_and_leaves_the_others_alone(speaker: Speaker) -> None:
    speaker.send("long", "Hello!", Guide("regex", "[0-9]{300}"))
    speaker.send("other", "Hello!", Guide("regex", "[0-9]{40}"))
    speaker.client.wait_for_tokens("long", 3)
    speaker.client.engine.cancel("long")
    assert re.fullmatch("[0-9]{40}", speaker.text("other"))
    speaker.client.finish("long")
    assert speaker.client.last("long").finish_reason == "cancelled"
    poll(lambda: speaker.client.engine.stats().active_requests == 0)


def test_the_grammar_wins_over_bad_words_and_min_tokens(speaker: Speaker) -> None:
    """Where everything allowed is forbidden too, the answer stays one of the grammar."""
    bad = tuple((token,) for token in range(speaker.tokenizer.vocab_size))
    speaker.send(
        "r",
        "Hello!",
        Guide("regex", "[0-9]{2}"),
        bad_words=bad,
        sampling=SamplingParams(temperature=0, min_tokens=50),
    )
    assert re.fullmatch("[0-9]{2}", speaker.text("r"))
    assert speaker.client.last("r").finish_reason == "stop"


def test_after_the_end_token_nothing_is_masked(speaker: Speaker) -> None:
    """A request without end_id goes on as it likes, as under XGrammar once a matcher has terminated."""
    speaker.client.send("r", speaker.prompt("Hello!"), 12, guide=Guide("regex", "[0-9]{2}"), sampling=GREEDY)
    (tokens,) = speaker.client.finish("r")
    assert len(tokens) == 12
    assert speaker.tokenizer.eos_id in tokens[:4]


@pytest.mark.parametrize(
    "guide",
    [
        Guide("json_schema", "{"),
        Guide("json_schema", '{"type": "objec"}'),
        Guide("json_schema", "[1, 2]"),
        Guide("regex", "[0-9]{3"),
        Guide("ebnf_grammar", 'root ::= "a'),
        Guide("ebnf_grammar", "root ::= missing"),
    ],
)
def test_a_guide_that_makes_no_sense_is_refused_and_nothing_is_held(speaker: Speaker, guide: Guide) -> None:
    with pytest.raises(GuideError, match=r"^Encountered an error in forwardAsync function: ."):
        speaker.send("r", "Hello!", guide)
    assert speaker.client.engine.stats().active_requests == 0


def test_an_engine_without_guides_refuses_them_as_the_executor_does(client: Client) -> None:
    with pytest.raises(RejectedRequestError, match="GuidedDecoder is not setup"):
        client.send("r", [1, 2, 3], guide=Guide("json"))


def test_compiled_grammars_are_kept_in_bounded_number(speaker: Speaker) -> None:
    guides = [Guide("regex", f"a{{{count}}}") for count in range(1, KEPT_GRAMMARS + 9)]
    for guide in guides:
        speaker.guides.start(guide)
    assert list(speaker.guides._compiled) == guides[-KEPT_GRAMMARS:]


def test_a_paused_guided_request_goes_on_where_it_was(make_client: MakeClient) -> None:
    """Blocks are taken away under max_utilization; the place in the grammar is not."""
    folder = MODELS / "depot-chat"
    weights = Weights.load(folder)
    limits = EngineLimits(
        max_batch_size=8,
        max_num_tokens=64,
        kv_blocks=12,
        tokens_per_block=8,
        batch_scheduler_policy="max_utilization",
        enable_kv_cache_reuse=False,
    )
    client = Client(Engine(weights, limits, guides=Guides(folder, weights.config)))
    client.engine.start()
    tokenizer = EngineTokenizer(folder)
    for number in range(4):
        prompt = tokenizer.encode(f"number {number}")
        guide = Guide("regex", "[0-9]{40}")
        client.send(f"r{number}", prompt, 60, guide=guide, end_id=tokenizer.eos_id)
    paused: list[int] = []

    def is_over() -> bool:
        paused.append(client.engine.stats().paused_requests)
        return all(client.finals(name) for name in client.outputs)

    poll(is_over)
    client.engine.close()
    assert max(paused), "nothing was ever paused"
    for tokens in client.finish():
        assert re.fullmatch("[0-9]{40}", tokenizer.decode(tokens))


def test_masking_leaves_what_is_allowed_as_it_was(speaker: Speaker) -> None:
    state = speaker.guides.start(Guide("regex", "[0-9]"))
    row = np.random.default_rng(1).normal(size=speaker.tokenizer.vocab_size).astype(np.float32)
    masked = row.copy()
    state.mask(masked)
    allowed = np.isfinite(masked)
    assert 10 <= allowed.sum() < 40
    assert np.array_equal(masked[allowed], row[allowed])

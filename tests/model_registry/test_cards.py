"""Goodput cards stand in Deployments, and what is wrong with one names the field and the remedy."""

from __future__ import annotations

import datetime

import pytest

from model_registry.cards import Goodput, GoodputCard
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.errors import ManifestErrors
from model_registry.kinds import decode, encode
from model_registry.manifests import parse_manifests, to_yaml

CARD = GoodputCard(
    source="measured",
    gpu_class="h100-sxm",
    date=datetime.date(2026, 11, 28),
    prefill_tokens_per_s=50_000,
    overhead_s=0.02,
    step_s=0.006,
    step_per_request_s=0.00005,
    slots=64,
    goodput=Goodput(
        prompt_tokens=512, output_tokens=128, ttft_s=1, itl_s=0.03, requests_per_s=20, tokens_per_s=2560
    ),
)
MODEL = Model(name="m", context_length=4096)
DEPLOYMENT = Deployment(name="d", model="m", servers=(ServerRef(http="http://a:8000"),), card=CARD)
HEAD = "kind: Deployment\nname: d\nmodel: m\nservers: [{http: 'http://a:8000'}]\ncard:\n"
WHOLE = {
    "source": "measured",
    "gpu_class": "cpu",
    "date": "2026-11-28",
    "prefill_tokens_per_s": "1000",
    "overhead_s": "0.1",
    "step_s": "0.01",
    "slots": "8",
}


def parse(**fields: str | None) -> list[object]:
    given = {**WHOLE, **fields}
    lines = [f"  {name}: {value}\n" for name, value in given.items() if value is not None]
    return list(parse_manifests([("f.yaml", to_yaml([MODEL]) + "---\n" + HEAD + "".join(lines))]))


def test_a_deployment_keeps_its_card_through_manifests_and_documents() -> None:
    again = parse_manifests([("f.yaml", to_yaml([MODEL, DEPLOYMENT]))])[1]
    assert again == DEPLOYMENT
    assert decode("Deployment", encode(DEPLOYMENT)) == DEPLOYMENT
    found = parse()[1]
    assert isinstance(found, Deployment)
    assert found.card is not None
    assert (found.card.step_base_s, found.card.date.year, found.card.goodput) == (0.01, 2026, None)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"source": "guessed"}, "card.source", "not allowed"),
        ({"slots": None}, "card.slots", "is required"),
        ({"slots": "0"}, "card.slots", "greater than or equal to 1"),
        ({"step": "0.1"}, "card.step", "did you mean"),
        ({"date": "yesterday"}, "card.date", "date"),
        ({"step_per_request_s": "0.02"}, "card", "must be below step_s"),
        ({"goodput": "{prompt_tokens: 0}"}, "card.goodput.prompt_tokens", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_card_names_the_field(
    fields: dict[str, str | None], field: str, said: str
) -> None:
    with pytest.raises(ManifestErrors) as caught:
        parse(**fields)
    found = {error.field: str(error) for error in caught.value.errors}
    assert field in found, found
    assert said in found[field]

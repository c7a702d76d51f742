"""Knobs in Triton's words, the front of measurements, and pictures that can be drawn."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from engine_builder.charts import Series, chart, shares
from engine_builder.errors import BuilderError
from engine_builder.tuning import Measured, Setting, Trial
from engine_builder.tuning.overrides import checked, config_lines, overridden, stated
from engine_builder.tuning.pareto import front, picture

CONFIG: dict[str, Any] = {
    "name": "tensorrt_llm",
    "parameters": {
        "batch_scheduler_policy": {"string_value": "max_utilization"},
        "enable_chunked_context": {"string_value": "True"},
        "kv_cache_free_gpu_mem_fraction": {"string_value": "${kv_cache_free_gpu_mem_fraction}"},
    },
}


def test_what_is_not_given_has_the_engine_s_default() -> None:
    assert stated(CONFIG, "scheduler_policy") == "max_utilization"
    assert stated(CONFIG, "chunked_context") == "true"
    assert stated(CONFIG, "kv_fraction") == "0.9"
    assert (stated(CONFIG, "kv_tokens"), stated(CONFIG, "queue_delay_us")) == ("", "0")


def test_an_override_changes_what_differs_and_nothing_else() -> None:
    same = Setting((("scheduler_policy", "max_utilization"), ("kv_fraction", "0.9"), ("max_in_flight", "4")))
    assert overridden(CONFIG, same) == CONFIG
    changed = overridden(CONFIG, Setting((("kv_tokens", "512"), ("queue_delay_us", "500"))))
    assert changed["parameters"]["max_tokens_in_paged_kv_cache"] == {"string_value": "512"}
    assert changed["dynamic_batching"] == {"max_queue_delay_microseconds": 500}
    assert "dynamic_batching" not in CONFIG
    assert config_lines({"kv_tokens": "512", "max_in_flight": "4"}) == [
        'parameters { key: "max_tokens_in_paged_kv_cache" value { string_value: "512" } }'
    ]


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("scheduler_policy", "fast"),
        ("chunked_context", "maybe"),
        ("kv_fraction", "1.5"),
        ("kv_fraction", "most"),
        ("kv_tokens", "0"),
        ("queue_delay_us", "-1"),
        ("max_in_flight", "many"),
    ],
)
def test_values_that_no_server_takes_are_refused_by_name(knob: str, value: str) -> None:
    with pytest.raises(BuilderError, match=f"--knob {knob}: '{value}'"):
        checked(knob, value)
    assert checked("chunked_context", "TRUE") == "true"


def measured(clients: int, itl_s: float, tokens_per_s: float, **more: Any) -> Measured:
    return Measured(Trial(START, clients), 1.0, 9, 1.0, tokens_per_s, 1.0, 0.1, 0.2, itl_s, **more)


START = Setting((("a", "<&>"),))


def test_the_front_is_what_nothing_beats_in_both() -> None:
    ones = [
        measured(1, 0.01, 50),
        measured(2, 0.02, 90),
        measured(3, 0.02, 80),
        measured(4, 0.03, 85),
        measured(5, 0.04, 120),
        measured(6, 0.001, 500, error="fails"),
    ]
    assert [one.trial.clients for one in front(ones)] == [1, 2, 5]
    drawn = ElementTree.fromstring(picture(ones, START, "A <title> & more"))
    circles = [one for one in drawn if one.tag.endswith("circle")]
    assert len(circles) == 5 + 3, "five that ran, and three of them again on the front"


def test_a_chart_is_xml_with_every_point_inside() -> None:
    for series in (
        [],
        [Series("none", [])],
        [Series("zero", [(0.0, 0.0)])],
        [shares("a", [0.5, 2.0, 1.0]), Series("b", [(3.3, 70.0)], line=False, notes=["<note>"])],
    ):
        drawn = ElementTree.fromstring(chart("t", "x", "y", series))
        width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
        for one in drawn.iter():
            if one.tag.endswith("circle"):
                assert 0 <= float(one.attrib["cx"]) <= width
                assert 0 <= float(one.attrib["cy"]) <= height

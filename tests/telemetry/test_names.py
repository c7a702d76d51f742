from __future__ import annotations

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from telemetry import names


def test_every_gen_ai_name_is_one_of_the_semantic_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert len(ours) > 20
    assert set() == ours - known


def test_our_own_names_carry_our_prefix() -> None:
    strings = {n: v for n, v in vars(names).items() if n.isupper() and isinstance(v, str)}
    dotted = {v for n, v in strings.items() if "." in v and n not in {"SEMCONV_VERSION", "SCHEMA_URL"}}
    prefixes = {name.split(".")[0] for name in dotted}
    assert {"gen_ai", "enginehouse", "error", "server", "http", "url"} >= prefixes


def test_the_schema_url_is_of_the_pinned_version() -> None:
    assert names.SCHEMA_URL.endswith(f"/{names.SEMCONV_VERSION}")

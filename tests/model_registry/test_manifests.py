"""Manifests are understood whole or refused whole, each mistake with its place and remedy."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model_registry.drains import name_of
from model_registry.entities import Adapter, Deployment, Endpoint, Model, ServerRef
from model_registry.errors import ManifestError, ManifestErrors
from model_registry.kinds import DECLARED
from model_registry.manifests import key_variables, parse_manifests, to_manifest, to_yaml
from model_registry.snapshot import Snapshot, Stored
from model_registry.tenants import ApiKey, Tenant

MODEL = Model(name="chat", context_length=4096, aliases=("gpt-4o",), default_profile="latency")
DEPLOYMENT = Deployment(
    name="chat-a",
    model="chat",
    lane="ensemble",
    servers=(ServerRef(http="http://a:8000", grpc="a:8001"), ServerRef(http="http://b:8000")),
    max_concurrency=16,
)
ALL: list[Stored] = [
    MODEL,
    Adapter(name="pirate", model="chat", path="/adapters/pirate", aliases=("buccaneer",), restricted=True),
    DEPLOYMENT,
    Tenant(name="acme", weight=2.5, allowed_models=("chat",)),
    ApiKey(name="laptop", tenant="acme", sha256="ab" * 32, admin=True),
]


def mistakes(text: str, **known: object) -> list[ManifestError]:
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("file.yaml", text)], **known)  # type: ignore[arg-type]
    return list(caught.value.errors)


def one(text: str, **known: object) -> ManifestError:
    found = mistakes(text, **known)
    assert len(found) == 1, [str(error) for error in found]
    return found[0]


def test_what_is_written_out_is_read_back_the_same() -> None:
    assert parse_manifests([("all.yaml", to_yaml(ALL))]) == ALL


def test_the_short_form_means_the_same() -> None:
    short = "kind: Model\nname: chat\ncontext_length: 4096\naliases: [gpt-4o]\ndefault_profile: latency\n"
    assert parse_manifests([("short.yaml", short)]) == [MODEL]


def test_a_manifest_shows_neither_defaults_nor_what_the_registry_sets() -> None:
    shown = to_manifest(Model(name="m", context_length=5, created=123))
    assert shown == {
        "apiVersion": "enginehouse/v1",
        "kind": "Model",
        "metadata": {"name": "m"},
        "spec": {"context_length": 5},
    }


def test_the_examples_of_the_project_are_right() -> None:
    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        assert parse_manifests([(example.name, example.read_text())])


def test_every_mistake_of_every_file_is_reported_at_once() -> None:
    files = [
        ("one.yaml", "kind: Model\nname: m\ncontext_length: many\n---\nkind: Modle\nname: x\n"),
        ("two.yaml", "kind: Deployment\nname: d\nmodel: m\nservers: []\n---\nkind: Tenant\nname: [t]\n"),
    ]
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests(files)
    assert [(e.file, e.line, e.field) for e in caught.value.errors] == [
        ("one.yaml", 3, "context_length"),
        ("one.yaml", 5, "kind"),
        ("two.yaml", 4, "servers"),
        ("two.yaml", 7, "name"),
    ]


def test_a_mistake_deep_inside_has_the_line_of_its_own_field() -> None:
    text = (
        "apiVersion: enginehouse/v1\n"
        "kind: Deployment\n"
        "metadata:\n  name: d\n"
        "spec:\n  model: chat\n  servers:\n"
        "    - http: http://a:1\n"
        "    - http: http://b:1\n      grpcs: b:2\n"
    )
    error = one(text, registry=Snapshot.of(1, [MODEL]))
    assert (error.line, error.field) == (10, "spec.servers[1].grpcs")
    assert "did you mean 'grpc'" in error.message
    assert error.allowed == ("api_key_env", "grpc", "http", "metrics")


@pytest.mark.parametrize(
    ("lines", "field", "message", "allowed"),
    [
        ("lane: tensort_llm", "lane", "did you mean 'tensorrt_llm'", "openai-http"),
        ("transport: tcp", "transport", "not allowed", "grpc"),
        ("profile: Fast Lane", "profile", "a lower-case word", None),
        ("max_concurrency: 0", "max_concurrency", "greater than 0", None),
        ("target: 5", "target", "put it in quotes", None),
        ("maxConcurrency: 5", "maxConcurrency", "did you mean 'max_concurrency'", "max_concurrency"),
        ("created: 5", "created", "unknown field", "servers"),
        ("lane: auto\nlane: auto", "lane", "given twice, first in line 5", None),
    ],
)
def test_a_wrong_field_names_itself_and_the_remedy(
    lines: str, field: str, message: str, allowed: str | None
) -> None:
    head = "kind: Deployment\nname: d\nmodel: chat\nservers: [{http: 'http://a:1'}]\n"
    error = one(head + lines, registry=Snapshot.of(1, [MODEL]))
    assert error.field == field
    assert message in error.message
    assert error.line == 4 + len(lines.splitlines())
    assert (allowed in (error.allowed or ())) == (allowed is not None)


def test_a_parser_is_one_of_those_there_are() -> None:
    head = "kind: Model\nname: m\ncontext_length: 5\n"
    (model,) = parse_manifests([("m.yaml", head + "tool_parser: hermes\nreasoning_parser: qwen3")])
    assert isinstance(model, Model)
    assert (model.tool_parser, model.reasoning_parser) == ("hermes", "qwen3")
    error = one(head + "tool_parser: llama_json")
    assert (error.field, error.line) == ("tool_parser", 4)
    assert "did you mean 'llama3_json'" in error.message


@pytest.mark.parametrize(
    ("server", "field", "message"),
    [
        ("http: 'http://a:80000'", "http", "a port from 1 to 65535"),
        ("http: 'http://a:80x'", "http", "a port from 1 to 65535"),
        ("http: 'http://[::1'", "http", "must have a host"),
        ("http: 'http://:80'", "http", "must have a host"),
        ("http: a:80", "http", "begins with http://"),
        ("http: 'http://a:80', grpc: a", "grpc", "must be host:port"),
        ("http: 'http://a:80', grpc: 'http://a:81'", "grpc", "must be host:port"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(server: str, field: str, message: str) -> None:
    text = f"kind: Deployment\nname: d\nmodel: chat\nservers:\n- {{{server}}}\n"
    error = one(text, registry=Snapshot.of(1, [MODEL]))
    assert (error.field, error.line) == (f"servers[0].{field}", 5)
    assert message in error.message


@pytest.mark.parametrize("grpc", ["triton-0:8001", "10.0.0.1:8001", "[::1]:8001"])
def test_addresses_of_every_kind_are_taken(grpc: str) -> None:
    assert ServerRef(http=f"http://{grpc}/v2", grpc=grpc).grpc == grpc


@pytest.mark.parametrize("where", ["servers: []", "", "servers: [{http: 'http://a'}]\nscaling: {pool: p}"])
def test_a_deployment_has_either_servers_or_scaling(where: str) -> None:
    error = one(f"kind: Deployment\nname: d\nmodel: chat\n{where}\n", registry=Snapshot.of(1, [MODEL]))
    assert error.field == "servers"
    assert "give either servers, where it is loaded already, or scaling" in error.message


@pytest.mark.parametrize("what", ["", "server: http://a\nendpoint: d@a:80"])
def test_a_drain_is_of_a_server_or_of_an_endpoint(what: str) -> None:
    error = one(f"kind: Drain\nname: x\n{what}\n")
    assert error.field == "endpoint"
    assert "give either endpoint or server" in error.message


def test_drains_are_called_by_what_they_drain() -> None:
    assert [name_of(target) for target in ("http://[::1]:8000/one", "d@a:8000", "https://b" + "x" * 200)] == [
        "1-8000-one",
        "d-a-8000",
        "b" + "x" * 127,
    ]


def test_missing_fields_are_named() -> None:
    assert [(e.field, e.message) for e in mistakes("kind: Deployment\n")] == [
        ("model", "is required"),
        ("name", "is required"),
        ("servers", "give either servers, where it is loaded already, or scaling, which names a pool"),
    ]


def test_references_may_be_met_by_the_files_or_the_registry() -> None:
    deployment = to_yaml([DEPLOYMENT])
    assert parse_manifests([("a", to_yaml([MODEL])), ("b", deployment)])
    assert parse_manifests([("b", deployment)], registry=Snapshot.of(1, [MODEL]))
    error = one(deployment, registry=Snapshot.of(1, [Model(name="chad", context_length=1)]))
    assert error.field == "spec.model"
    assert "did you mean 'chad'" in error.message


def test_a_mistaken_model_does_not_also_make_its_deployments_wrong() -> None:
    bad_model = "kind: Model\nname: chat\ncontext_length: x\n---\n"
    assert one(bad_model + to_yaml([DEPLOYMENT])).field == "context_length"


def test_names_may_be_given_once() -> None:
    error = one(to_yaml([MODEL, MODEL.model_copy(update={"context_length": 9})]))
    assert error.field == "metadata.name"
    assert "already in file.yaml:4" in error.message


def test_an_alias_cannot_stand_for_two_models() -> None:
    other = Model(name="other", context_length=1, aliases=("chat",))
    assert one(to_yaml([MODEL, other])).field == "spec.aliases"
    assert one(to_yaml([other]), registry=Snapshot.of(1, [MODEL])).field == "spec.aliases"


def test_an_adapter_needs_its_model_and_names_of_its_own() -> None:
    adapter = Adapter(name="pirate", model="chat", aliases=("chat",))
    error = one(to_yaml([adapter]), registry=Snapshot.of(1, [MODEL]))
    assert error.field == "spec.aliases"
    assert "Model 'chat' and Adapter 'pirate'" in error.message
    twice = [adapter.model_copy(update={"name": name, "aliases": ("p",)}) for name in ("a", "b")]
    assert one(to_yaml([MODEL, *twice])).field == "spec.aliases"
    missing = one(to_yaml([adapter]))
    assert missing.field == "spec.model"
    assert "no Model named 'chat'" in missing.message
    assert one("kind: Adapter\nname: a+b\nmodel: chat\n", registry=Snapshot.of(1, [MODEL])).field == "name"


def test_a_server_is_listed_once_per_deployment() -> None:
    twice = DEPLOYMENT.model_copy(update={"servers": DEPLOYMENT.servers[:1] * 2})
    assert one(to_yaml([MODEL, twice])).field == "spec.servers[1].http"


@pytest.mark.parametrize("spelling", ["keyFromEnv", "key_from_env"])
def test_a_key_comes_from_the_senders_environment_as_a_hash(spelling: str) -> None:
    text = f"kind: ApiKey\nname: k\ntenant: t\n{spelling}: TEAM_KEY\n"
    tenant = Snapshot.of(1, [Tenant(name="t")])
    assert key_variables([("f", text)]) == {"TEAM_KEY"}
    parsed = parse_manifests([("f", text)], registry=tenant, key_hashes={"TEAM_KEY": "cd" * 32})
    assert parsed == [ApiKey(name="k", tenant="t", sha256="cd" * 32)]
    assert "'TEAM_KEY' is not set" in one(text, registry=tenant).message


def test_a_key_in_clear_is_refused_and_not_repeated() -> None:
    text = "kind: ApiKey\nname: k\ntenant: t\nsha256: " + "ab" * 32 + "\nkey: eh-very-secret\n"
    error = one(text, registry=Snapshot.of(1, [Tenant(name="t")]))
    assert error.field == "key"
    assert "very-secret" not in str(error)


def test_endpoints_are_not_applied() -> None:
    endpoint = Endpoint(
        name="d@a:1", deployment="d", model="m", profile="p", lane="llmapi", target="t", http="http://a:1"
    )
    error = one(to_yaml([endpoint]))
    assert (error.field, error.allowed) == ("kind", DECLARED)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("kind: Model\n  name: x: y", 2, "not valid YAML"),
        ("a: &a [*a]", 1, "aliases that expand without bound"),
        ("[" * 10_000, 1, "nested deeper"),
        ("kind: Model\nname: !!python/name:os.system x", 2, "could not determine a constructor"),
        ("x: 1\n" * 30_000, 25_000, "more than"),
        ("#" * 600_000, 1, "longer than"),
        ("name: \x07", 1, "not valid YAML"),
        ("name: \udc00", 1, "not valid YAML"),
        ("- just\n- a list", 1, "a manifest is a mapping"),
        ("context_length: " + "9" * 5000, 1, "not a usable value"),
    ],
)
def test_text_that_is_no_manifest_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    error = mistakes(text)[0]
    assert message in error.message
    assert error.line == line


def test_aliases_that_multiply_are_refused_quickly() -> None:
    layers = ["a: &a0 [" + "x," * 9 + "]"]
    layers += [f"a{n}: &a{n} [" + f"*a{n - 1}," * 9 + "]" for n in range(1, 12)]
    assert "aliases that expand" in mistakes("\n".join(layers))[0].message


def test_empty_files_and_documents_mean_nothing() -> None:
    assert parse_manifests([("a", ""), ("b", "# nothing\n---\n---\n")]) == []


YAML_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "model", "servers", "http", "lane", "spec", "x"]), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["Model", "Deployment", "Tenant", "ApiKey", "x"]), fields=YAML_LIKE)
def test_no_value_anywhere_causes_anything_but_manifest_errors(kind: str, fields: object) -> None:
    for document in ({"kind": kind, "spec": fields, "metadata": fields}, {"kind": kind, "servers": fields}):
        with suppress(ManifestErrors):
            parse_manifests([("f", yaml.safe_dump(document))])


def test_kv_events_are_for_servers_that_publish_them() -> None:
    """The mistake says what may be written instead."""
    written = "kind: Deployment\nname: d\nmodel: m\nservers: [{http: 'http://a'}]\n"
    models = Snapshot.of(1, [Model(name="m", context_length=5)])
    for lane in ("", "lane: openai-http\n"):
        (found,) = parse_manifests([("d.yaml", f"{written}{lane}kv_events: trtllm-serve\n")], registry=models)
        assert isinstance(found, Deployment)
        assert found.kv_events == "trtllm-serve"
    error = one(f"{written}lane: ensemble\nkv_events: trtllm-serve\n", registry=models)
    assert (error.field, error.line) == ("kv_events", 6)
    assert "lane: openai-http" in error.message
    unknown = one(f"{written}kv_events: vllm\n", registry=models)
    assert unknown.allowed == ("trtllm-serve",)

"""Mistakes in a pool's actuator are told by the fields of the type that it names."""

from __future__ import annotations

from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model_registry.errors import ManifestError, ManifestErrors
from model_registry.manifests import parse_manifests, to_yaml
from model_registry.pools import KubernetesActuator, Pool, PoolServer, TritonActuator

TYPES = ("triton", "process", "docker", "kubernetes", "dry-run")
SERVER = "servers: [{http: 'http://a'}]"


def mistakes(actuator: str) -> list[ManifestError]:
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("pool.yaml", f"kind: Pool\nname: p\nactuator: {actuator}\n")])
    return list(caught.value.errors)


@pytest.mark.parametrize(
    ("actuator", "field", "message", "allowed"),
    [
        ("{type: kubernetes, porrt: http}", "actuator.porrt", "did you mean 'port'?", "grpc_port"),
        (f"{{type: triton, {SERVER}, leak: 5}}", "actuator.leak", "did you mean 'leak_mib'?", "recycle"),
        (f"{{type: docker, image: x, {SERVER}}}", "actuator.servers", "unknown field", "image"),
        ("{type: dry-run, image: x}", "actuator.image", "unknown field", "type"),
        (
            "{type: kubernets}",
            "actuator.type",
            "'kubernets' is not allowed; did you mean 'kubernetes'?",
            TYPES,
        ),
        ("{type: Docker}", "actuator.type", "did you mean 'docker'?", TYPES),
        ("{type: 3}", "actuator.type", "3 is not allowed", TYPES),
        ("{type: null}", "actuator.type", "is required", TYPES),
        ("{namespace: llm}", "actuator.type", "is required", TYPES),
        ("kubernetes", "actuator", "must be a mapping, not 'kubernetes'", None),
        ("[kubernetes]", "actuator", "must be a mapping", None),
        ("{type: triton}", "actuator.servers", "is required", None),
        ("{type: triton, servers: []}", "actuator.servers", "must have at least one item", None),
        ("{type: kubernetes, kind: DaemonSet}", "actuator.kind", "'DaemonSet' is not allowed", "StatefulSet"),
        ("{type: kubernetes, port: 80}", "actuator.port", "put it in quotes", None),
        ("{type: process, command: python}", "actuator.command", "must be a list", None),
        ("{type: docker, image: x, gpus: -1}", "actuator.gpus", "greater than or equal to 0", None),
    ],
)
def test_mistakes(actuator: str, field: str, message: str, allowed: str | tuple[str, ...] | None) -> None:
    (error,) = mistakes(actuator)
    assert error.field == field
    assert message in error.message
    assert error.line == 3
    match allowed:
        case tuple():
            assert error.allowed == allowed
        case str():
            assert allowed in (error.allowed or ())
        case None:
            assert not error.allowed


def test_mistakes_deep_within_have_their_own_lines() -> None:
    servers = "\n  servers:\n    - {http: a:80, memory_mb: 5}\n    - {http: 'http://b'}"
    found = mistakes(f"\n  type: triton{servers}\n  leak_mib: 0")
    assert [(error.line, error.field) for error in found] == [
        (6, "actuator.servers[0].http"),
        (6, "actuator.servers[0].memory_mb"),
        (8, "actuator.leak_mib"),
    ]
    assert "begins with http://" in found[0].message
    assert "did you mean 'memory_mib'?" in found[1].message


def test_what_is_written_out_is_read_back_the_same() -> None:
    pools = [
        Pool(name="k", actuator=KubernetesActuator(type="kubernetes", kind="StatefulSet", grpc_port="grpc")),
        Pool(
            name="t",
            actuator=TritonActuator(type="triton", servers=(PoolServer(http="http://a", memory_mib=5),)),
        ),
    ]
    assert parse_manifests([("pools.yaml", to_yaml(pools))]) == pools


FIELDS = st.sampled_from(["type", "servers", "http", "command", "environment", "image", "kind", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(FIELDS, children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(of=st.sampled_from([*TYPES, "x", None]), fields=st.dictionaries(FIELDS, VALUES, max_size=4) | VALUES)
def test_no_value_anywhere_causes_anything_but_manifest_errors(of: str | None, fields: object) -> None:
    actuator = {"type": of, **fields} if isinstance(fields, dict) else fields
    text = yaml.safe_dump({"kind": "Pool", "name": "p", "actuator": actuator})
    with suppress(ManifestErrors):
        assert [type(pool) for pool in parse_manifests([("f", text)])] == [Pool]

"""Mistakes in a pool's actuator are told by the fields of the type that it names."""

from __future__ import annotations

from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model_registry.errors import ManifestError, ManifestErrors, PoolConflictError
from model_registry.manifests import parse_manifests, to_yaml
from model_registry.pools import (
    Actuator,
    DockerActuator,
    DryRunActuator,
    KubernetesActuator,
    Pool,
    PoolServer,
    ProcessActuator,
    TritonActuator,
)
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore

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


def triton(name: str, *servers: str, **fields: object) -> Pool:
    actuator = TritonActuator(type="triton", servers=tuple(PoolServer(http=one) for one in servers))
    return Pool.model_validate({"name": name, "actuator": actuator, **fields})


def test_a_server_belongs_to_one_pool() -> None:
    """However its URL is written; of those that are stored, too."""
    stored = Snapshot.of(1, [triton("a", "http://one:80")])
    applied = to_yaml([triton("b", "http://two", "http://ONE/")])
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("b.yaml", applied)], registry=stored)
    (error,) = caught.value.errors
    assert error.field == "spec.actuator.servers[1].http"
    assert "is a server of pool 'a', too" in error.message
    assert "list it in one of them" in error.message
    moved = to_yaml([triton("a", "http://three"), triton("b", "http://one")])
    parse_manifests([("both.yaml", moved)], registry=stored)


@pytest.mark.parametrize(
    ("servers", "field", "message"),
    [
        ("[{http: 'http://a'}, {http: 'http://a:80/'}]", "actuator.servers[1].http", "is listed twice"),
        ("[{http: 'http://a', memory_mib: 9}]", "max_replicas", "leave it out: all servers have memory_mib"),
    ],
)
def test_what_means_nothing_in_a_pool_is_told(servers: str, field: str, message: str) -> None:
    text = f"kind: Pool\nname: p\nactuator: {{type: triton, servers: {servers}}}\nmax_replicas: 3\n"
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("pool.yaml", text)])
    (error,) = caught.value.errors
    assert error.field == field
    assert message in error.message


PROCESS = ProcessActuator(type="process", command=("serve",))
DOCKER = DockerActuator(type="docker", image="i", url="tcp://one")
KUBERNETES = KubernetesActuator(type="kubernetes", workload="w")


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        (PROCESS, DryRunActuator(type="dry-run"), "type"),
        (DOCKER, DOCKER.model_copy(update={"url": "tcp://two"}), "url"),
        (DOCKER, DOCKER.model_copy(update={"image": "j", "gpus": 1, "network": "n"}), None),
        (PROCESS, PROCESS.model_copy(update={"command": ("serve", "--faster"), "host": "::1"}), None),
        (KUBERNETES, KUBERNETES.model_copy(update={"namespace": "other"}), "namespace"),
        (KUBERNETES, KUBERNETES.model_copy(update={"workload": "v"}), "workload"),
        (KUBERNETES, KUBERNETES.model_copy(update={"kind": "StatefulSet"}), "kind"),
        (KUBERNETES, KUBERNETES.model_copy(update={"kubeconfig": "/k"}), "kubeconfig"),
        (KUBERNETES, KUBERNETES.model_copy(update={"port": "8080", "service": "s"}), None),
    ],
)
async def test_where_replicas_are_looked_for_stays_while_there_are_any(
    store: RegistryStore, before: Actuator, after: Actuator, field: str | None
) -> None:
    """Told with the line of the manifest, and by the registry itself to whoever writes there."""
    replica = Replica(name="d.00000a", deployment="d", model="m", pool="p", state="ready")
    changed = Pool(name="p", actuator=after)
    await store.apply([Pool(name="p", actuator=before), replica])
    text = to_yaml([changed])
    if field is None:
        parse_manifests([("p.yaml", text)], registry=await store.load())
        await store.apply([changed])
        return
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("p.yaml", text)], registry=await store.load())
    (error,) = caught.value.errors
    assert error.field == f"spec.actuator.{field}"
    assert "while the pool has replicas (d.00000a)" in error.message
    assert "apply another pool" in error.message
    with pytest.raises(PoolConflictError, match=f"Pool 'p': actuator.{field}: stays"):
        await store.apply([changed])
    await store.apply([], delete=[("Replica", "d.00000a")])
    await store.apply([changed])

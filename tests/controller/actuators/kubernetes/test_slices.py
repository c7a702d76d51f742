"""Where the pods of a Service listen, by slices as the API writes them."""

from __future__ import annotations

from typing import Any

import pytest

from controller.actuators.kubernetes.leaving import leaving_order
from controller.actuators.kubernetes.slices import Ports, members_of, pod_of
from controller.actuators.port import ActuatorError, Member
from model_registry.entities import ServerRef

HTTP = Ports("http")


def endpoint(name: str, *addresses: str, **conditions: bool | None) -> dict[str, Any]:
    target = {"kind": "Pod", "namespace": "llm", "name": name, "uid": f"u-{name}"}
    return {"addresses": list(addresses), "conditions": conditions, "targetRef": target}


def slice_of(*endpoints: dict[str, Any], family: str = "IPv4", **ports: int) -> dict[str, Any]:
    listed = [
        {"name": name, "protocol": "TCP", "port": port} for name, port in (ports or {"http": 8000}).items()
    ]
    return {"addressType": family, "endpoints": list(endpoints), "ports": listed}


def handles(*slices: dict[str, Any], ready: bool = True) -> list[str]:
    return [pod_of(m.handle) for m in members_of(slices, "chat", HTTP) if m.ready == ready]


def test_a_pod_is_told_with_all_its_ports() -> None:
    ports = Ports("http", "grpc", "metrics")
    (member,) = members_of(
        [slice_of(endpoint("a", "10.1.2.3", ready=True), http=8000, grpc=8001, metrics=8002)], "chat", ports
    )
    server = ServerRef(
        http="http://10.1.2.3:8000", grpc="10.1.2.3:8001", metrics="http://10.1.2.3:8002/metrics"
    )
    assert member == Member("a/u-a", server, ready=True, terminating=False)


@pytest.mark.parametrize(
    ("conditions", "ready", "terminating"),
    [
        ({"ready": True, "serving": True, "terminating": False}, True, False),
        ({"ready": False, "serving": False, "terminating": False}, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True),
        ({"ready": False, "serving": False, "terminating": True}, False, True),
        ({}, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, False),
        ({"ready": True, "serving": False}, False, False),
    ],
    ids=["ready", "starting", "going, serves", "going", "unknown", "null", "published though not ready"],
)
def test_conditions(conditions: dict[str, bool | None], ready: bool, terminating: bool) -> None:
    (member,) = members_of([slice_of(endpoint("a", "10.1.2.3", **conditions))], "chat", HTTP)
    assert (member.ready, member.terminating) == (ready, terminating)


def test_several_slices_make_one_service() -> None:
    first = slice_of(endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", ready=False))
    second = slice_of(endpoint("c", "10.0.0.3"))
    assert handles(first, second) == ["a", "c"]
    assert handles(first, second, ready=False) == ["b"]


def test_a_pod_that_moves_between_slices_is_told_once_and_at_its_best() -> None:
    old, new = (
        slice_of(endpoint("a", "10.0.0.1", ready=False)),
        slice_of(endpoint("a", "10.0.0.1", ready=True)),
    )
    assert handles(old, new) == handles(new, old) == ["a"]


def test_ipv6_is_written_in_brackets_and_ipv4_preferred() -> None:
    six = slice_of(endpoint("a", "fd00::7"), family="IPv6")
    four = slice_of(endpoint("a", "10.0.0.7"))
    assert [m.server.http for m in members_of([six], "chat", HTTP)] == ["http://[fd00::7]:8000"]
    assert [m.server.http for m in members_of([six, four], "chat", HTTP)] == ["http://10.0.0.7:8000"]


def test_the_same_name_of_a_port_may_be_another_number_in_another_slice() -> None:
    slices = [slice_of(endpoint("a", "10.0.0.1"), http=8000), slice_of(endpoint("b", "10.0.0.2"), http=9000)]
    assert [m.server.http for m in members_of(slices, "chat", HTTP)] == [
        "http://10.0.0.1:8000",
        "http://10.0.0.2:9000",
    ]


def test_ports_by_number_and_without_a_name() -> None:
    plain = {"addressType": "IPv4", "endpoints": [endpoint("a", "10.0.0.1")], "ports": [{"port": 8000}]}
    assert [m.server.http for m in members_of([plain], "chat", Ports("8000"))] == ["http://10.0.0.1:8000"]


def test_https_where_the_port_says_so() -> None:
    secure = slice_of(endpoint("a", "10.0.0.1"))
    secure["ports"][0]["appProtocol"] = "https"
    assert [m.server.http for m in members_of([secure], "chat", HTTP)] == ["https://10.0.0.1:8000"]


@pytest.mark.parametrize("empty", [{"endpoints": None}, {"endpoints": []}, {}])
def test_a_service_without_pods_has_none(empty: dict[str, Any]) -> None:
    assert members_of([{"addressType": "IPv4", "ports": [], **empty}], "chat", HTTP) == ()


def test_a_port_that_the_service_lacks_is_told_with_those_it_has() -> None:
    slices = [slice_of(endpoint("a", "10.0.0.1"), web=80, grpc=8001)]
    with pytest.raises(
        ActuatorError, match=r"no port 'http' \(it has web 80, grpc 8001\); set actuator\.port"
    ):
        members_of(slices, "chat", HTTP)
    with pytest.raises(ActuatorError, match=r"no port 'metrics'.*set actuator\.metrics_port"):
        members_of(slices, "chat", Ports("web", metrics="metrics"))


def test_endpoints_without_pods_go_by_their_address() -> None:
    bare = {"addresses": ["10.0.0.9"], "conditions": {"ready": True}}
    assert [m.handle for m in members_of([slice_of(bare)], "chat", HTTP)] == ["10.0.0.9"]


def test_of_a_deployment_it_can_be_chosen_who_goes() -> None:
    assert leaving_order("Deployment", members("a", "b", going="b")) is None


@pytest.mark.parametrize("kind", ["StatefulSet", "LeaderWorkerSet"])
def test_of_numbered_ones_the_highest_go_first(kind: str) -> None:
    order = leaving_order(kind, members("chat-2", "chat-10", "chat-0", "chat-11", going="chat-11"))
    assert order == ("chat-10/u", "chat-2/u", "chat-0/u")


def members(*names: str, going: str) -> list[Member]:
    server = ServerRef(http="http://x")
    return [Member(f"{name}/u", server, ready=True, terminating=name == going) for name in names]

"""A deployment's engine decides whether its servers may get requests, and its endpoints say why not."""

from __future__ import annotations

import asyncio
import datetime
import re
from typing import Any

import pytest

from controller.config import ControllerConfig
from controller.desired import Desired, desired_endpoints
from controller.engines import refusal
from controller.observe import Observation
from controller.reconcile import Action, Move, Register, reconcile
from controller.run import Controller
from inference.control import health
from inference.introspection import introspect
from model_registry.engines import Check, Engine, PreflightRecord
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.store import RegistryStore
from tests.controller.conftest import ModelServer
from tests.controller.test_reconcile import Recognised
from tests.controller.test_run import FAST, endpoint_where

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
PASSED = PreflightRecord(passed=True, at=NOW, server="http://a:8000")
FAILED = PreflightRecord(
    passed=False, at=NOW, checks=(Check(name="ranks", passed=False, detail="lacks rank1"),)
)
ENGINE = Engine(
    name="e-1",
    spec="e",
    digest="a" * 64,
    lane="trt-engine",
    runtime="tensorrt-llm",
    version="1.2.1",
    gpu_class="h100-sxm",
    precision="fp8",
    url="/engines/e-1",
    manifest_sha256="b" * 64,
    built_at=NOW,
    preflight=PASSED,
)
SERVER = ServerRef(http="http://a:8000")
DEPLOYMENT = Deployment(name="d", model="m", engine="e-1", servers=(SERVER,))
NAME = "d@a:8000"
SEEN = Observation(True, schema=Recognised())
PROBED = Observation(True)


def engine(**fields: Any) -> Engine:
    return ENGINE.model_copy(update=fields)


def wanted(of: Engine | None) -> Desired:
    return Desired(DEPLOYMENT, SERVER, of)


READY = wanted(ENGINE).endpoint(Recognised()).model_copy(update={"state": "ready"})


def decide(of: Engine | None, seen: Observation | None, present: Endpoint | None) -> list[Action]:
    return reconcile(
        {NAME: wanted(of)},
        {} if seen is None else {NAME: seen},
        {} if present is None else {NAME: present},
        {NAME: 0},
        2,
    )


@pytest.mark.parametrize(
    ("of", "emulated", "reason"),
    [
        (None, None, "engine 'e-1' is not in the registry"),
        (engine(preflight=None), False, "has not been through preflight: enginehouse preflight e-1"),
        (engine(preflight=FAILED), False, r"has not passed preflight \(ranks: lacks rank1\)"),
        (engine(runtime="emulated"), False, "is emulated, and the server is no emulator"),
        (ENGINE, True, "is of tensorrt-llm, and the server is an emulator"),
    ],
)
def test_an_engine_that_may_not_serve_says_why(of: Engine | None, emulated: bool | None, reason: str) -> None:
    assert re.search(reason, refusal("e-1", of, emulated) or "")


@pytest.mark.parametrize(
    ("named", "of", "emulated"),
    [
        (None, None, True),
        ("e-1", ENGINE, False),
        ("e-1", ENGINE, None),
        ("e-1", engine(runtime="emulated"), True),
    ],
)
def test_what_may_serve(named: str | None, of: Engine | None, emulated: bool | None) -> None:
    """Deployments without an engine are taken on trust, one with a passed engine on its own runtime."""
    assert refusal(named, of, emulated) is None


def test_every_endpoint_is_judged_by_the_engine_that_its_deployment_names() -> None:
    other = DEPLOYMENT.model_copy(update={"name": "free", "engine": None})
    found = desired_endpoints([DEPLOYMENT, other], {"e-1": ENGINE, "e-2": engine(name="e-2")})
    assert [one.engine for one in found.values()] == [ENGINE, None]


def test_a_healthy_server_waits_for_its_engines_preflight_and_then_becomes_ready() -> None:
    (action,) = decide(engine(preflight=None), SEEN, None)
    assert isinstance(action, Register)
    assert action.endpoint.state == "starting"
    assert "has not been through preflight" in (action.endpoint.reason or "")
    assert decide(engine(preflight=None), SEEN, action.endpoint) == []
    (ready,) = decide(ENGINE, SEEN, action.endpoint)
    assert isinstance(ready, Register)
    assert (ready.endpoint.state, ready.endpoint.reason) == ("ready", None)


@pytest.mark.parametrize("seen", [PROBED, None])
def test_a_ready_endpoint_whose_engine_fails_preflight_is_taken_out_at_once(seen: Observation | None) -> None:
    (action,) = decide(engine(preflight=FAILED), seen, READY)
    assert isinstance(action, Move)
    assert action.state == "unhealthy"
    assert "has not passed preflight" in action.reason


def test_an_emulated_engine_never_serves_on_a_real_server() -> None:
    emulated = engine(runtime="emulated")
    (action,) = decide(emulated, SEEN, None)
    assert isinstance(action, Register)
    assert "the server is no emulator" in (action.endpoint.reason or "")
    (ready,) = decide(emulated, Observation(True, schema=Recognised(emulated=True)), None)
    assert isinstance(ready, Register)
    assert ready.endpoint.state == "ready"


def test_a_probe_alone_goes_by_what_was_registered_of_the_server() -> None:
    registered = READY.model_copy(update={"server_schema": {"lane": "tensorrt_llm", "emulated": True}})
    (action,) = decide(ENGINE, PROBED, registered)
    assert isinstance(action, Move)
    assert "the server is an emulator" in action.reason
    assert decide(ENGINE, PROBED, READY) == []


async def test_an_endpoint_becomes_ready_when_the_record_of_a_preflight_is_written(
    store: RegistryStore, model_server: ModelServer
) -> None:
    """Against a real Redis and a server that answers: what keeps it from being ready is the record alone."""
    deployment = Deployment(
        name="d", model="m", lane="openai-http", engine="e-1", servers=(ServerRef(http=model_server.url),)
    )
    await store.apply([Model(name="m", context_length=100), engine(preflight=None), deployment])
    config: ControllerConfig = FAST
    controller = Controller(store, introspect, health, config, endpoint_ttl_s=1.0)
    running = asyncio.create_task(controller.run())
    try:
        (endpoint,) = await endpoint_where(store, lambda e: bool(e.reason))
        assert (endpoint.state, endpoint.lane) == ("starting", "openai-http")
        assert "has not been through preflight" in (endpoint.reason or "")
        await store.apply([engine(preflight=PASSED)])
        await endpoint_where(store, lambda e: e.state == "ready")
        await store.apply([engine(preflight=FAILED)])
        (endpoint,) = await endpoint_where(store, lambda e: e.state == "unhealthy")
        assert "ranks: lacks rank1" in (endpoint.reason or "")
    finally:
        running.cancel()
        await asyncio.wait([running])

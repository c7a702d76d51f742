"""What operators drain: nothing is placed there, and what serves there finishes."""

from __future__ import annotations

from dataclasses import replace

from controller.replicas.acts import Seen
from controller.replicas.placing import undrained
from controller.replicas.sight import Sight
from model_registry.drains import Drain
from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from tests.controller.replicas.test_plan import HTTP, NOW, POOL, TRITONS, deployment, planned, replica, told


def test_nothing_is_placed_on_drained_servers() -> None:
    drains = [Drain(name=f"{n}", server=f"{http}/") for n, http in enumerate(HTTP)]
    assert told(planned([], 1, pool=TRITONS, drains=drains[:2]).acts) == [("Start", HTTP[2])]
    none = planned([], 1, pool=TRITONS, drains=drains)
    assert (none.acts, none.held_up) == ((), {"d": "every server of pool 'p' is drained"})
    assert undrained(POOL, drains) == POOL
    assert undrained(TRITONS, [Drain(name="e", endpoint="d@t0:8000")]) == TRITONS


def test_a_drained_replica_is_replaced_but_never_given_up() -> None:
    """Where there is no room for another one it finishes what it has."""
    there = [replica("a", place=HTTP[0], target="m")]
    away = Seen(endpoint="d@a:1", ready=False, out_s=99, drained=True)
    drains = [Drain(name="x", server=HTTP[0])]
    assert told(planned(there, 1, pool=TRITONS, drains=drains, at={"a": away}).acts) == [("Start", HTTP[1])]
    full = TRITONS.model_copy(update={"max_replicas": 1})
    assert planned(there, 1, pool=full, at={"a": away}).acts == ()
    broken = replace(away, drained=False)
    assert told(planned(there, 1, pool=full, at={"a": broken}).acts)[0][0] == "GiveUp"


def test_what_comes_up_on_a_server_that_is_drained_then_comes_up_elsewhere() -> None:
    """There it would be registered when the server is back, and nobody knows when that is."""
    drain = Drain(name="x", server=HTTP[0])
    for listens in ({}, {"server": {"http": HTTP[0]}, "handle": f"m@{HTTP[0]}"}):
        coming = replica("a", "starting", place=HTTP[0], target="m", since=NOW, **listens)
        for drains in ([drain], []):
            stored = Snapshot.of(
                1, (Model(name="m", context_length=10), TRITONS, deployment(), coming, *drains)
            )
            acts = told(planned([coming], 1, pool=TRITONS, drains=[drain], at=Sight().see(stored, [])).acts)
            assert acts == ([("Stop", "a"), ("Start", HTTP[1])] if drains else [])

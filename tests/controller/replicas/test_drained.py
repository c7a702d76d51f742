"""What operators drain: nothing is placed there, and what serves there finishes."""

from __future__ import annotations

from dataclasses import replace

from controller.replicas.acts import Seen
from controller.replicas.placing import undrained
from model_registry.drains import Drain
from tests.controller.replicas.test_plan import HTTP, POOL, TRITONS, planned, replica, told


def test_nothing_is_placed_on_drained_servers() -> None:
    drains = [Drain(name=f"{n}", server=f"{http}/") for n, http in enumerate(HTTP)]
    assert told(planned([], 1, pool=undrained(TRITONS, drains[:2])).acts) == [("Start", HTTP[2])]
    none = planned([], 1, pool=undrained(TRITONS, drains))
    assert (none.acts, none.held_up) == ((), {"d": "every server of pool 'p' is drained"})
    assert undrained(POOL, drains) == POOL
    assert undrained(TRITONS, [Drain(name="e", endpoint="d@t0:8000")]) == TRITONS


def test_a_drained_replica_is_replaced_but_never_given_up() -> None:
    """Where there is no room for another one it finishes what it has."""
    there = [replica("a", place=HTTP[0], target="m")]
    away = Seen(endpoint="d@a:1", ready=False, out_s=99, drained=True)
    pool = undrained(TRITONS, [Drain(name="x", server=HTTP[0])])
    assert told(planned(there, 1, pool=pool, at={"a": away}).acts) == [("Start", HTTP[1])]
    full = TRITONS.model_copy(update={"max_replicas": 1})
    assert planned(there, 1, pool=full, at={"a": away}).acts == ()
    broken = replace(away, drained=False)
    assert told(planned(there, 1, pool=full, at={"a": broken}).acts)[0][0] == "GiveUp"

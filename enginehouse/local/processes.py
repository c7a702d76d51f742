"""The gateway, the controller and the builder of a local stack, as processes of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from enginehouse.local.model_servers import http_probe
from enginehouse.local.redis import redis_url
from enginehouse.local.service import CommandService
from enginehouse.local.state_dir import STATE_DIR_ENV, StateDir

DRAIN_TIMEOUT_S = 5.0
"""Shorter than a fleet's: the operator is waiting at the terminal."""
GATEWAY_READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What the gateway of a local stack is told."""

    host: str
    port: int
    workers: int
    trace_ratio: float | None


def environment(state: StateDir, redis_port: int, front: FrontSettings) -> dict[str, str]:
    """Settings of the stack's own processes, as variables.

    Where to find each other is the stack's to say; for the rest the operator's own variables win.
    """
    own = {
        STATE_DIR_ENV: str(state.root),
        "ENGINEHOUSE_REGISTRY__REDIS_URL": redis_url(redis_port, state.keys().redis_password),
        "ENGINEHOUSE_GATEWAY__HOST": front.host,
        "ENGINEHOUSE_GATEWAY__PORT": str(front.port),
        "ENGINEHOUSE_GATEWAY__WORKERS": str(front.workers),
    }
    if front.trace_ratio is not None:
        own["ENGINEHOUSE_TELEMETRY__SAMPLE_RATIO"] = str(front.trace_ratio)
    return {**_unless_set(_preferences(state), os.environ), **own}


def _preferences(state: StateDir) -> dict[str, str]:
    return {
        "ENGINEHOUSE_REGISTRY__SNAPSHOT_PATH": str(state.snapshots / "snapshot.json"),
        "ENGINEHOUSE_BATCH_JOBS__STORE_PATH": str(state.batch_jobs),
        "ENGINEHOUSE_GATEWAY__DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        "ENGINEHOUSE_TELEMETRY__EXPORTER": "file",
        "ENGINEHOUSE_TELEMETRY__TRACE_FILE": str(state.traces),
        "ENGINEHOUSE_TELEMETRY__SAMPLE_RATIO": "1.0",
    }


def _unless_set(preferences: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in preferences.items() if name not in given}


def controller_service(state: StateDir, variables: Mapping[str, str]) -> CommandService:
    """`enginehouse controller`."""
    return CommandService("controller", _command("controller"), state.log("controller"), variables)


def builder_service(state: StateDir, variables: Mapping[str, str]) -> CommandService:
    """`enginehouse builder`, of engines that this machine can serve."""
    command = [*_command("builder"), "--runtime", "emulated"]
    return CommandService("builder", command, state.log("builder"), variables)


def gateway_service(state: StateDir, variables: Mapping[str, str], root: str) -> CommandService:
    """`enginehouse gateway`, ready once it answers; its models come later."""
    return CommandService(
        "gateway",
        _command("gateway"),
        state.log("gateway"),
        variables,
        probe=http_probe(f"{root}/healthz"),
        ready_timeout_s=GATEWAY_READY_TIMEOUT_S,
    )


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "enginehouse", name]

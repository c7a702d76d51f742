"""How what scaling speaks of is shown in one cell of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def one_cell(value: Mapping[str, Any]) -> str | None:
    """An actuator, a deployment's scaling or a replica's server in a few words; None for anything else."""
    match value:
        case {"type": "triton", "servers": [*servers]}:
            return f"triton: {len(servers)} server{'' if len(servers) == 1 else 's'}"
        case {"type": "process", "command": [program, *_]}:
            return f"process: {program}"
        case {"type": "docker", "image": image}:
            return f"docker: {image}"
        case {"type": "kubernetes", "namespace": namespace, "kind": kind, "workload": workload}:
            return f"kubernetes: {kind} {namespace}/{workload}"
        case {"type": "dry-run"}:
            return "dry-run"
        case {"pool": pool, "min_replicas": least, "max_replicas": most}:
            return f"{least} to {most} in {pool}"
        case {"http": http, "grpc": _, "metrics": _}:
            return str(http)
    return None

"""Words that commands and environments of pools may have in braces, and what they stand for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from controller.replicas.placing import target_of
from model_registry.entities import Deployment
from model_registry.replicas import Replica

PORTS = ("http_port", "grpc_port", "metrics_port")


def words_of(replica: Replica, deployment: Deployment, ports: Mapping[str, int]) -> dict[str, str]:
    """`ports` by the names of PORTS, as far as the replica has them."""
    return {
        "replica": replica.name,
        "deployment": deployment.name,
        "model": deployment.model,
        "target": target_of(deployment),
        **{name: str(port) for name, port in ports.items()},
    }


def words_of_server(http: str) -> dict[str, str]:
    """Of a running server, for the command that restarts it; `http`: its URL."""
    parts = urlsplit(http)
    return {"http": http, "host": parts.hostname or "", "port": str(parts.port or "")}


def filled(text: str, words: Mapping[str, str]) -> str:
    """Braces around anything else stay: an argument may be JSON."""
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text

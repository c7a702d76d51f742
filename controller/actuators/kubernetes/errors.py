"""What the Kubernetes API refuses, and what to do about it.

ActuatorError
  KubernetesError
    ConflictError   somebody else changed the object meanwhile (409)
    GoneError       the changes asked for are no longer kept (410)
    MissingError    there is no such object (404)
"""

from __future__ import annotations

import json
from typing import Any

from controller.actuators.kubernetes.resources import Resource
from controller.actuators.port import ActuatorError


class KubernetesError(ActuatorError):
    """The API server refused, or did not answer."""


class ConflictError(KubernetesError):
    """Somebody else changed the object meanwhile; read it again."""


class GoneError(KubernetesError):
    """The changes since that version are no longer kept; list anew."""


class MissingError(KubernetesError):
    """There is no such object."""


def error_of(verb: str, resource: Resource, status: int, message: str) -> KubernetesError:
    """What a refusal means; `message`: the server's own words."""
    told = f": {message}" if message else ""
    match status:
        case 401:
            return KubernetesError(
                f"Kubernetes does not know who we are (401 on {verb} {resource}){told}; "
                "check the pool's kubeconfig, or the pod's service account"
            )
        case 403:
            return KubernetesError(
                f"RBAC does not let us {verb} {resource}{told}; the Role of our service account needs: "
                f"{resource.rule(verb)}"
            )
        case 404:
            return MissingError(f"there is no {resource}{told}")
        case 409:
            return ConflictError(f"{resource} was changed by somebody else meanwhile{told}")
        case 410:
            return GoneError(f"changes of {resource} are no longer kept from there on{told}")
        case 429:
            return KubernetesError(f"Kubernetes has too many requests to {verb} {resource} now{told}")
    return KubernetesError(f"Kubernetes answered {status} to {verb} {resource}{told}")


def told_by(body: bytes) -> str:
    """The message of a Status object, or what else there is."""
    try:
        status: Any = json.loads(body)
        return str(status["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:300]

"""What the Docker daemon refuses, and what to do about it."""

from __future__ import annotations

from controller.actuators.port import ActuatorError

UNREACHABLE = 900
"""The status that aiodocker gives to a daemon that did not answer."""

_NO_IMAGE = "no such image"
_NO_NETWORK = "network"
_NO_GPU_RUNTIME = ("could not select device driver", "nvidia-container-cli", "unknown runtime")
_PORT_TAKEN = ("port is already allocated", "address already in use", "ports are not available")
_NO_PROGRAM = ("executable file not found", "no such file or directory", "permission denied")


class DockerApiError(ActuatorError):
    """The daemon refused, or did not answer. `status`: HTTP's, or 900 where there was no answer."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def error_of(verb: str, status: int, message: str) -> DockerApiError:
    """What a refusal means; `verb`: what was asked, `message`: the daemon's own words."""
    said = message.strip()[:500]
    remedy = _remedy(status, said.lower())
    if remedy is not None:
        return DockerApiError(f"Docker cannot {verb}: {said}; {remedy}", status)
    return DockerApiError(f"Docker answered {status} to {verb}: {said}", status)


def _remedy(status: int, said: str) -> str | None:
    if status == UNREACHABLE:
        return (
            "is a daemon running there, and may this user open its socket? "
            "`actuator.url` of the pool, or DOCKER_HOST, names another one"
        )
    if status == 404 and _NO_IMAGE in said:
        return "bring it to that host first (`docker pull`), or correct the pool's `actuator.image`"
    if any(words in said for words in _NO_GPU_RUNTIME):
        return (
            "install the NVIDIA Container Toolkit there and restart Docker, or set the pool's "
            "`actuator.gpus` to 0"
        )
    if any(words in said for words in _PORT_TAKEN):
        return "another process has the port; it is tried again with another one"
    if status == 404 and _NO_NETWORK in said:
        return "make it (`docker network create`), or correct the pool's `actuator.network`"
    if "oci runtime" in said and any(words in said for words in _NO_PROGRAM):
        return "correct the pool's `actuator.command`: its first word is a program of the image"
    if "invalid" in said and status in (400, 500):
        return "correct the pool's `actuator` fields"
    return None

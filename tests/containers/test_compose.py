"""The compose files hold together, with the command line, and with what we promise of containers."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from enginehouse.cli import app
from enginehouse.local.stack import read_stack
from enginehouse.settings import refuse_unknown
from model_registry.entities import Deployment, Model
from model_registry.manifests import parse_manifests

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
IMAGE_ROOT = "/opt/enginehouse"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
BASE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DEBIAN: dict[str, Any] = yaml.safe_load((COMPOSE / "debian.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = BASE["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}
JOBS = {"secrets", "register", "register-gpu"}
WRITES_TO_ITS_ROOT = {"triton-gpu", "builder"}
"""Why is said beside each."""
SECRET = re.compile(r"password|secret|token|_key|credential", re.IGNORECASE)

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def environment(service: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in (service.get("environment") or {}).items()}


@each_service
def test_images_are_pinned(name: str) -> None:
    """To a version; ours to that of the project."""
    image = SERVICES[name]["image"]
    tag = image.rpartition(":")[2]
    assert re.search(r"\d+\.\d+", tag)
    assert not image.endswith("latest")
    if name in OURS:
        assert tag == VERSION


@each_service
def test_containers_may_do_little(name: str) -> None:
    """No root, no privileges to gain, no root file system to write to."""
    service = SERVICES[name]
    user = service.get("user") or _user_of_image(service)
    assert user.split(":")[0] not in ("", "0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["read_only"] is (name not in WRITES_TO_ITS_ROOT)
    assert not service.get("privileged")
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes") or ())


def _user_of_image(service: dict[str, Any]) -> str:
    text = (ROOT / service["build"].get("dockerfile", "Dockerfile")).read_text()
    stage = service["build"].get("target")
    text = text[text.index(f"AS {stage}\n") :] if stage else text
    found = re.search(r"^USER (\S+)$", text, re.MULTILINE)
    return found[1] if found else ""


@each_service
def test_containers_are_bounded_and_come_back(name: str) -> None:
    """Memory, processes and logs; jobs end by themselves."""
    service = SERVICES[name]
    assert service["logging"]["options"]["max-size"]
    if name in JOBS:
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["mem_limit"]
        assert service["pids_limit"] > 0


@each_service
def test_no_secret_is_in_an_environment(name: str) -> None:
    """They come by file; what names such a file may be there."""
    for key, value in environment(SERVICES[name]).items():
        assert not SECRET.search(key) or key.endswith("_FILE")
        assert "://:" not in value
        if SECRET.search(key) or key == "ENGINEHOUSE_REGISTRY__REDIS_URL_FILE":
            assert value.startswith("/run/enginehouse/")


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_settings_are_read_by_something(name: str) -> None:
    """A variable that nothing reads would stop the container at its start."""
    refuse_unknown(environment(OURS[name]))


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_commands_are_there(name: str) -> None:
    """With the options that they are given; modules can be imported."""
    service = OURS[name]
    if entrypoint := service.get("entrypoint"):
        assert entrypoint[:2] == ["python", "-m"]
        assert importlib.util.find_spec(entrypoint[2])
        return
    command, *arguments = service["command"]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    context = group.commands[command].make_context(command, list(arguments))
    assert context.params


@each_service
def test_what_is_mounted_is_there(name: str) -> None:
    """Files of the repository, read-only; volumes are declared."""
    for volume in SERVICES[name].get("volumes") or ():
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            assert (ROOT / source).exists()
            assert rest.endswith(":ro")
        elif not source.startswith("$"):
            assert source in BASE["volumes"]


@each_service
def test_who_is_waited_for_can_be_waited_for(name: str) -> None:
    """Services of the same profile, healthy or at their end; no third-party part is needed to start ours."""
    waits = SERVICES[name].get("depends_on") or {}
    for other in waits:
        assert set(SERVICES[other].get("profiles") or ()) <= set(SERVICES[name].get("profiles") or ())
        assert name not in OURS or other in OURS or other == "redis"


def test_healthy_can_be_said_of_every_service() -> None:
    """By a check of its own or its image's; those that cannot say so why beside it."""
    without = {name for name, one in SERVICES.items() if not (one.get("healthcheck") or name in OURS)}
    assert without == {"collector", "jaeger"}
    assert {name for name in OURS if OURS[name].get("healthcheck") == {"disable": True}} == {*JOBS, "builder"}


def test_ports_are_on_loopback_unless_asked() -> None:
    """Four of them, each on one service."""
    ports = [port for one in SERVICES.values() for port in one.get("ports") or ()]
    assert len(ports) == 4
    assert all(port.startswith("${HOUSE_BIND:-127.0.0.1}:") for port in ports)


def test_the_collectors_pipelines_name_what_there_is() -> None:
    """And by the names that last: `otlp` as an exporter and `batch` as a processor are being taken away."""
    config = yaml.safe_load((COMPOSE / "collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) == config[kind].keys()
    assert "otlp" not in config["exporters"]
    assert "batch" not in config["processors"]


def test_prometheus_scrapes_what_has_metrics() -> None:
    """Services of ours, at the ports that their settings name."""
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    found = {job["job_name"]: job["dns_sd_configs"][0] for job in config["scrape_configs"]}
    assert {name: one["names"] for name, one in found.items()} == {
        name: [name] for name in ("gateway", "controller", "triton")
    }
    controller = environment(SERVICES["controller"])
    assert controller["ENGINEHOUSE_CONTROLLER__METRICS_PORT"] == str(found["controller"]["port"])
    assert controller["ENGINEHOUSE_CONTROLLER__HOST"] == "0.0.0.0"


def test_debians_parts_change_what_is_there() -> None:
    """Nothing new; left out is what no registry gives and Debian lacks."""
    assert set(DEBIAN["services"]) <= set(SERVICES)
    left_out = {name for name, one in DEBIAN["services"].items() if one.get("profiles") == ["left-out"]}
    assert left_out == {"jaeger", "grafana"}
    third_party = set(SERVICES) - set(OURS) - {"triton-gpu"}
    assert third_party <= set(DEBIAN["services"])


def test_the_default_profile_is_the_one_without_a_gpu() -> None:
    """`docker compose up` reads it from .env."""
    assert "COMPOSE_PROFILES=cpu\n" in (ROOT / ".env").read_text()
    assert {p for one in SERVICES.values() for p in one.get("profiles") or ()} == {"cpu", "gpu"}


def test_the_models_of_profile_cpu_are_served_by_its_triton() -> None:
    """Targets and tokenizers: the manifest and the stack file name the same."""
    stack = read_stack(COMPOSE / "cpu" / "stack.yaml")
    items = parse_manifests([("models.yaml", (COMPOSE / "cpu" / "models.yaml").read_text())])
    (server,) = stack.servers
    deployments = [item for item in items if isinstance(item, Deployment)]
    assert {one.model for one in deployments} == {one.name for one in stack.models}
    for one in deployments:
        assert server.engine(one.target or one.model)
    for model in items:
        if isinstance(model, Model):
            folder = ROOT / (model.tokenizer or "").removeprefix(f"{IMAGE_ROOT}/")
            assert (folder / "tokenizer.json").is_file()


def test_the_models_of_profile_gpu_are_built_for_the_image_that_serves() -> None:
    """TensorRT-LLM 1.2.1 is in the images 26.04 to 26.07."""
    texts = [(name, (COMPOSE / "gpu" / name).read_text()) for name in ("models.yaml", "serving.yaml")]
    versions = [getattr(item, "version", None) for item in parse_manifests(texts)]
    assert "1.2.1" in versions
    image = SERVICES["triton-gpu"]["image"]
    assert re.search(r":26\.0[4-7]-trtllm-python-py3$", image)
    assert f"ARG TENSORRT_LLM={image}\n" in (COMPOSE / "gpu" / "Dockerfile").read_text()


def test_the_image_holds_every_package() -> None:
    """.dockerignore leaves out all that is not named."""
    named = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= named

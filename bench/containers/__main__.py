"""`make compose-check`: the stack of containers built, up, used, scaled, each one killed, and down again.

Ends with `RESULT {json}`: the seconds of each step. 0: all is well, nothing is left; 1: a step went wrong;
2: Docker or Compose is missing here. Where a registry gives images the compose file runs as it is, else with
the parts of `deploy/compose/debian.yaml`, on a base image made here.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench import campaign
from bench.build import BenchError
from bench.containers.client import Client, Conversation
from bench.containers.docker import (
    ROOT,
    Compose,
    Container,
    DockerMissingError,
    StepError,
    can_pull,
    compose_command,
    has_image,
    run,
    wait_until,
)
from bench.containers.traffic import Told, Traffic
from enginehouse.local.ports import free_port

PROJECT = "enginehouse-check"
FILE, DEBIAN = "compose.yaml", "deploy/compose/debian.yaml"
WITH_VARIABLE = ("HOUSE_PORT", "HOUSE_JAEGER_PORT", "HOUSE_PROMETHEUS_PORT", "HOUSE_GRAFANA_PORT")
BUILD_TIMEOUT_S, UP_TIMEOUT_S, HEAL_TIMEOUT_S = 1200.0, 400.0, 240.0
SPANS = {"route", "attempt", "first token", "finish"}
STAYING = {"redis", "gateway", "proxy", "controller", "triton", "collector", "prometheus"}
UNSEEN = ("redis", "controller", "collector", "prometheus")
"""Whose death no request may notice."""


class Check:
    """The steps, in order, with the time of each."""

    def __init__(self, compose: Compose, ports: dict[str, str], debian: bool) -> None:
        self._compose, self._ports, self._debian = compose, ports, debian
        self._staying = set(STAYING) if debian else {*STAYING, "jaeger", "grafana"}
        """Services that run until they are ended; the others are jobs."""
        self.result: dict[str, Any] = {"parts": "debian" if debian else "images", "seconds": {}}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time it, and say so."""
        begun_s = time.monotonic()
        yield
        took_s = self.result["seconds"][name] = round(time.monotonic() - begun_s, 1)
        _say(f"{name}: {took_s} s")

    def steps(self) -> None:
        """Everything. Raises StepError."""
        compose = self._compose
        with self.step("base image"):
            self._base_image()
        with self.step("build"):
            compose("build", timeout_s=BUILD_TIMEOUT_S)
        with self.step("up"):
            self._up()
            self._all_well(HEAL_TIMEOUT_S)
        with self.step("models registered"):
            client = self._client(self._key())
        with self.step("conversation"):
            talk = client.converse()
            first_s = round(talk.first_token_s, 3)
            self.result["conversation"] = {"first_token_s": first_s, "chunks": talk.chunks}
        with self.step("trace found"):
            self.result["spans"] = self._trace(client, talk)
        with self.step("dashboards answered"):
            wait_until("requests in Prometheus", lambda: bool(client.query("enginehouse_requests_total")), 60)
            self.result["dashboards"] = client.dashboards()
        with self.step("scaled to three gateways"):
            self._scale(client)
        traffic = Traffic(client)
        try:
            self._crash_each(client, traffic)
            self._kill_each(client, traffic)
        finally:
            traffic.close()

    def down(self) -> None:
        """Raises StepError when something is left."""
        with self.step("down"):
            self._compose("--profile", "left-out", "down", "--volumes", "--remove-orphans", timeout_s=180)
            if left := self._compose.left():
                raise StepError(f"left behind: {' '.join(left)}")

    # -- steps ----------------------------------------------------------------------------------------

    def _base_image(self) -> None:
        image = base_image()
        if self._debian and not has_image(image):
            run(["tools/base-image.sh", image], timeout_s=600)

    def _up(self) -> None:
        try:
            self._compose("up", "-d", timeout_s=UP_TIMEOUT_S)
        except StepError as error:
            ill = {one.service for one in self._compose.containers() if not one.well} - {"secrets"}
            logs = self._compose("logs", "--no-color", "--tail", "8", *sorted(ill)) if ill else ""
            raise StepError(f"{error}\n{logs}") from error

    def _all_well(self, timeout_s: float) -> None:
        services = self._staying

        def well() -> bool:
            now = [one for one in self._compose.containers() if one.service in services]
            return {one.service for one in now} == services and all(one.well for one in now)

        try:
            wait_until("every container well", well, timeout_s)
        except StepError as error:
            ill = [f"{c.name} {c.status} {c.health}" for c in self._compose.containers() if not c.well]
            raise StepError(f"{error}; not so: {', '.join(ill)}") from error

    def _key(self) -> str:
        def ended() -> bool:
            return all(one.status == "exited" for one in self._compose.of("register"))

        wait_until("the job `register` at its end", ended, 300)
        said = self._compose("logs", "--no-color", "register")
        found = re.search(r"^.*\bkey: (\S+)", said, re.MULTILINE)
        if found is None:
            raise StepError(f"`register` printed no key: {said[-1000:]}")
        return found[1]

    def _client(self, key: str) -> Client:
        names = ("HOUSE_PORT", "HOUSE_JAEGER_PORT", "HOUSE_PROMETHEUS_PORT")
        house, jaeger, prometheus = (f"http://127.0.0.1:{self._ports[name]}" for name in names)
        return Client(f"{house}/v1", key, jaeger, prometheus)

    def _trace(self, client: Client, talk: Conversation) -> list[str]:
        wait_until("the conversation's trace", lambda: set(client.spans(talk.trace)) >= SPANS, 30)
        return sorted(set(client.spans(talk.trace)))

    def _scale(self, client: Client) -> None:
        self._compose("up", "-d", "--no-recreate", "--scale", "gateway=3", timeout_s=UP_TIMEOUT_S)
        self._all_well(HEAL_TIMEOUT_S)

        def each_serves() -> bool:
            if not client.answers():
                raise StepError("a request failed while a gateway was added")
            return len(client.query('enginehouse_requests_total{outcome="ok"} > 0')) >= 3

        wait_until("requests on all three gateways", each_serves, 60)

    def _crash_each(self, client: Client, traffic: Traffic) -> None:
        """Each main process killed, as the kernel does when memory runs out: Docker starts it again."""
        crashes = self.result["crashed"] = {}
        for known in self._victims():
            with self.step(f"{known.service} crashed and healed"):
                victim = self._as_it_was(known)
                traffic.since()
                killed_s = time.monotonic()
                self._kill_process(victim)
                crashes[victim.service] = self._healed(victim, client, traffic, killed_s, by_docker=True)
        unseen = {name: crashes[name] for name in UNSEEN if crashes.get(name, {}).get("failed")}
        if unseen:
            raise StepError(f"requests failed that need nothing of what died: {unseen}")

    def _kill_each(self, client: Client, traffic: Traffic) -> None:
        """Each container killed by `docker kill`, which Docker takes for our will: Compose brings it back."""
        kills = self.result["killed"] = {}
        for victim in self._victims():
            with self.step(f"{victim.service} killed and brought back"):
                traffic.since()
                killed_s = time.monotonic()
                run(["docker", "kill", victim.id])
                self._compose("up", "-d", "--no-recreate", "--scale", "gateway=3", timeout_s=UP_TIMEOUT_S)
                kills[victim.service] = self._healed(victim, client, traffic, killed_s, by_docker=False)

    def _victims(self) -> list[Container]:
        """One container of each service that stays."""
        running = [one for one in self._compose.containers() if one.service in self._staying]
        return list({one.service: one for one in running}.values())

    def _as_it_was(self, known: Container) -> Container:
        """The container, looked at again. Raises StepError where it has died without our doing."""
        found = next((one for one in self._compose.of(known.service) if one.name == known.name), None)
        if found is None or found.status != "running" or found.started_at != known.started_at:
            said = self._compose("logs", "--tail", "40", known.service)
            raise StepError(f"{known.name} has died, though nobody killed it: {said}")
        return found

    def _healed(
        self, victim: Container, client: Client, traffic: Traffic, killed_s: float, *, by_docker: bool
    ) -> dict[str, Any]:
        """Seconds until it was well again, and what clients saw meanwhile. Raises StepError."""

        def again() -> bool:
            restarts = victim.restarts + 1 if by_docker else 0
            return any(
                one.well and one.started_at != victim.started_at and one.restarts >= restarts
                for one in self._compose.of(victim.service)
                if one.name == victim.name
            )

        try:
            wait_until(f"{victim.name} well again", again, HEAL_TIMEOUT_S)
            back_s = time.monotonic() - killed_s
            wait_until(f"an answer after {victim.name} came back", client.answers, 30)
        except StepError as error:
            raise StepError(f"{error}: {self._compose('logs', '--tail', '20', victim.service)}") from error
        told: Told = traffic.since()
        return {"back_s": round(back_s, 1), "asked": told.asked, "failed": told.failed}

    def _kill_process(self, victim: Container) -> None:
        """Docker's own ways to kill would count as asked for; this needs no root outside of a container."""
        kill = f"import os; os.kill({victim.pid}, 9)"
        only = ["--pid", "host", "--network", "none", "--user", "0", "--cap-drop", "ALL", "--cap-add", "KILL"]
        run(["docker", "run", "--rm", *only, "--entrypoint", "python", "enginehouse:0.1.0", "-c", kill])


def base_image() -> str:
    """Named by the Dockerfile."""
    found = re.search(r"^ARG BASE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _ended(attempt: Callable[[], None]) -> str | None:
    """What went wrong, if anything."""
    try:
        attempt()
    except StepError as error:
        return str(error)
    return None


def main() -> int:
    """Run the steps; always take the stack down."""
    parser = campaign.parser(__doc__, "python -m bench.containers --parts debian")
    parser.add_argument(
        "--parts",
        choices=("auto", "images", "debian"),
        default="auto",
        help="third-party parts: their own images, or Debian's; auto: their own where a registry is reached",
    )
    options = parser.parse_args()
    return campaign.concluded(lambda: checked(options.parts))


def checked(parts: str) -> dict[str, Any]:
    """The seconds of each step, and what went wrong, if anything. Raises BenchError without Docker."""
    try:
        command = compose_command()
    except DockerMissingError as error:
        raise BenchError(str(error)) from error
    debian = parts == "debian" or (parts == "auto" and not can_pull(base_image()))
    ports = {name: str(free_port()) for name in WITH_VARIABLE}
    files = [FILE, DEBIAN] if debian else [FILE]
    check = Check(Compose(command, files, PROJECT, ports), ports, debian)
    begun_s = time.monotonic()
    try:
        problem = _ended(check.steps)
    finally:
        left = _ended(check.down)
    problem = problem or left
    if problem is not None:
        _say(f"error: {problem}")
    told = {"ok": problem is None, "problem": problem, "took_s": round(time.monotonic() - begun_s, 1)}
    return {**told, **check.result}


if __name__ == "__main__":
    sys.exit(main())

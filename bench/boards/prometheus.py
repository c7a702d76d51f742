"""Prometheus as a program: started on the compose file's own configuration, and asked over HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from bench.containers.docker import ROOT, StepError, run, wait_until
from enginehouse.local.ports import free_port

CONFIG = ROOT / "deploy" / "compose" / "prometheus.yml"
READY_WITHIN_S = 30.0
LOOKED_BACK = "10m"
STEP = "1s"


class PrometheusMissingError(Exception):
    """No such program here; `str` says how to get it."""


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that it answers with. Raises StepError for an expression that it cannot read."""
        words = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise StepError(f"Prometheus refuses {expression}: {error.read().decode()[:300]}") from error
        return found

    def peaks(self, expression: str) -> dict[str, float]:
        """The greatest value that each series of `expression` had since the start, by its labels."""
        answered = self.query(f"max_over_time(({expression})[{LOOKED_BACK}:{STEP}])")
        peaks = {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in answered}
        return {labels: peak for labels, peak in peaks.items() if not isnan(peak)}

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                return True
        except OSError:
            return False

    def up(self) -> dict[str, float]:
        """Of each job, the share of its targets that could be scraped."""
        return {one["metric"]["job"]: float(one["value"][1]) for one in self.query("avg by (job) (up)")}


def find(given: str | None) -> Path:
    """The program. Raises PrometheusMissingError."""
    found = shutil.which(given or "prometheus")
    if found is None:
        raise PrometheusMissingError(
            f"no program {given or 'prometheus'}\n"
            "  apt-get download prometheus && dpkg -x prometheus_*.deb DIR\n"
            "  then --prometheus DIR/usr/bin/prometheus"
        )
    return Path(found)


def checked(program: Path, config: Path) -> str | None:
    """What promtool says of a configuration, where it lies beside Prometheus. Raises StepError."""
    promtool = program.with_name("promtool")
    return run([str(promtool), "check", "config", str(config)]).strip() if promtool.exists() else None


def adapted(text: str, targets: Mapping[str, Sequence[str]]) -> str:
    """The compose file's configuration, with these targets in place of names that only Docker knows.

    Raises StepError where a job has none, or one that is scraped is not there.
    """
    config = yaml.safe_load(text)
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    if jobs.keys() != targets.keys():
        raise StepError(f"{CONFIG.name} scrapes {sorted(jobs)}, what runs is {sorted(targets)}")
    for name, job in jobs.items():
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": list(targets[name])}]
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    return yaml.safe_dump(config)


@contextmanager
def scraping(program: Path, folder: Path, targets: Mapping[str, Sequence[str]]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `targets`, by job, until the block ends."""
    config, address = folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
    config.write_text(adapted(CONFIG.read_text(), targets))
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        prometheus = Prometheus(f"http://{address}")
        wait_until("Prometheus is ready", prometheus.ready, READY_WITHIN_S)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)

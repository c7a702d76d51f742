"""Compose's own Prometheus configuration, with what runs here in place of Docker's names."""

from __future__ import annotations

import pytest
import yaml

from bench.boards.prometheus import CONFIG, PrometheusMissingError, adapted, find
from bench.containers.client import with_values
from bench.containers.docker import StepError

TARGETS = {
    "gateway": ["127.0.0.1:1"],
    "controller": ["127.0.0.1:2"],
    "triton": ["127.0.0.1:3", "127.0.0.1:4"],
}


def test_every_job_gets_the_targets_that_run() -> None:
    jobs = yaml.safe_load(adapted(CONFIG.read_text(), TARGETS))["scrape_configs"]
    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs} == TARGETS
    assert not any("dns_sd_configs" in job for job in jobs)


@pytest.mark.parametrize("changed", [{"controller": None}, {"other": ["127.0.0.1:5"]}])
def test_a_job_that_is_forgotten_is_told(changed: dict[str, list[str] | None]) -> None:
    """On either side: what runs is scraped, and what is scraped runs."""
    targets = {name: one for name, one in {**TARGETS, **changed}.items() if one is not None}
    with pytest.raises(StepError, match=r"prometheus\.yml scrapes"):
        adapted(CONFIG.read_text(), targets)


def test_without_prometheus_it_is_said_how_to_get_it() -> None:
    with pytest.raises(PrometheusMissingError, match="apt-get download prometheus"):
        find("/nowhere/prometheus")


def test_variables_of_grafana_get_values() -> None:
    asked = with_values('rate(x{model=~"$model", profile=~"$profile"}[$__rate_interval])')
    assert asked == 'rate(x{model=~".*", profile=~".*"}[1m])'

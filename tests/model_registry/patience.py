"""A registry's settings for tests that are not about outages: on a busy machine Redis may answer late."""

from __future__ import annotations

import pytest

from model_registry.config import RegistryConfig
from tests.model_registry.conftest import RedisServer


@pytest.fixture(name="config")
def patient_config(redis_server: RedisServer) -> RegistryConfig:
    """In place of `config` of `conftest`, which notices outages within a test's patience."""
    return RegistryConfig(redis_url=redis_server.url, name="test", command_timeout_s=30)

"""Commands find a running stack by themselves, and send its keys nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginehouse.connection import locate, root_of
from enginehouse.errors import ApiError
from enginehouse.local.state_dir import StateDir, write_private

READY = {"base_url": "http://127.0.0.1:8080/v1", "api_key": "local", "admin_key": "local-admin"}


@pytest.fixture
def running(state: StateDir) -> Path:
    """A state directory whose stack is ready."""
    write_private(state.ready, READY)
    return state.root


def test_a_local_stack_is_found_by_its_ready_file(running: Path) -> None:
    """Without an option or a variable."""
    found = locate(state_dir=running, environment={})
    assert (found.base_url, found.admin_url) == ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/admin/v1")
    assert (found.api_key, found.admin_key) == ("local", "local-admin")


def test_options_win_over_variables_and_variables_over_the_ready_file(running: Path) -> None:
    """Each of URL and key on its own."""
    variables = {"ENGINEHOUSE_URL": "http://a:1", "ENGINEHOUSE_API_KEY": "a", "ENGINEHOUSE_ADMIN_KEY": "aa"}
    found = locate(state_dir=running, environment=variables)
    assert (found.root, found.api_key, found.admin_key) == ("http://a:1", "a", "aa")
    found = locate("http://b:2/v1", "b", running, variables)
    assert (found.root, found.api_key, found.admin_key) == ("http://b:2", "b", "b")


def test_local_keys_never_travel_to_another_gateway(running: Path) -> None:
    """A URL given by hand gets no key of the ready file, unless it is the stack's own."""
    assert locate("http://elsewhere:8080", state_dir=running, environment={}).api_key is None
    assert locate("http://127.0.0.1:8080/", state_dir=running, environment={}).api_key == "local"


def test_without_any_stack_the_way_to_one_is_told(tmp_path: Path) -> None:
    """One sentence and what to do."""
    with pytest.raises(ApiError) as refused:
        locate(state_dir=tmp_path, environment={})
    assert "enginehouse up" in (refused.value.remedy or "")


@pytest.mark.parametrize(
    "url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", "h:1", "http://h:1/admin/v1"]
)
def test_any_spelling_of_the_url_will_do(url: str) -> None:
    """Base URL, root or host and port."""
    assert root_of(url) == "http://h:1"


def test_keys_may_come_by_file(running: Path, tmp_path: Path) -> None:
    """As settings do, so that containers get them without a variable."""
    (tmp_path / "key").write_text("by-file\n")
    variables = {"ENGINEHOUSE_URL": "http://a:1", "ENGINEHOUSE_ADMIN_KEY_FILE": str(tmp_path / "key")}
    found = locate(state_dir=running, environment=variables)
    assert (found.api_key, found.admin_key) == (None, "by-file")

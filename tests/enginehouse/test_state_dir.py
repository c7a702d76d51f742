"""A state directory has one owner at a time and keeps its secrets."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse.errors import BusyError
from enginehouse.local.state_dir import StateDir, default_state_dir, write_private

HOLD = (
    "import sys; from pathlib import Path; from enginehouse.local.state_dir import StateDir;"
    "lock = StateDir(Path(sys.argv[1])).locked(); lock.__enter__();"
    "print('held', flush=True); sys.stdin.read()"
)


def _holder(state: StateDir) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_owner_is_told_who_holds_it(state: StateDir) -> None:
    """The message names the process, the folder and the way out."""
    with _holder(state) as process:
        with pytest.raises(BusyError) as refused, state.locked():
            pass
        process.kill()
    assert f"process {process.pid}" in refused.value.message
    assert str(state.root) in refused.value.message
    assert "--state-dir" in (refused.value.remedy or "")


def test_the_lock_goes_with_its_holder_even_when_killed(state: StateDir) -> None:
    """No stale lock file ever keeps a start away."""
    with _holder(state) as process:
        process.kill()
    with state.locked():
        pass


def test_keys_are_random_kept_and_private(tmp_path: Path) -> None:
    """Each folder has its own keys, the same ones at every start, readable by their owner alone."""
    one, other = StateDir(tmp_path / "a"), StateDir(tmp_path / "b")
    for state in (one, other):
        state.create()
    assert one.keys() == StateDir(one.root).keys()
    assert one.keys() != other.keys()
    assert stat.S_IMODE((one.root / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(one.root.stat().st_mode) == 0o700


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    """A value that cannot be written leaves the old file and no litter."""
    path = tmp_path / "ready.json"
    write_private(path, {"a": 1})
    with pytest.raises(TypeError):
        write_private(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["ready.json"]


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ENGINEHOUSE_STATE_DIR, then XDG_STATE_HOME, then ~/.local/state."""
    monkeypatch.delenv("ENGINEHOUSE_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / ".local/state/enginehouse"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert default_state_dir() == tmp_path / "xdg/enginehouse"
    monkeypatch.setenv("ENGINEHOUSE_STATE_DIR", str(tmp_path / "here"))
    assert default_state_dir() == tmp_path / "here"

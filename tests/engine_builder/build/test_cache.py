"""The cache of steps: the least recently used goes first, never what a build uses, and no leftovers stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine_builder.build import StepCache, run
from engine_builder.build.guards import visible_gpus
from engine_builder.build.locks import FileLock
from engine_builder.errors import StoreError
from engine_builder.steps.step import Step
from tests.engine_builder.build.conftest import ROOMY, sh


def steps(*names: str) -> tuple[Step, ...]:
    """Each leaves 1,000 bytes."""
    return tuple(sh(name, "head -c 1000 /dev/zero > {output}/x") for name in names)


def names(cache: StepCache) -> set[str]:
    return {entry.step for entry in cache.entries()}


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """Using counts, not making."""
    for at, name in enumerate(("a", "b", "c")):
        with StepCache(tmp_path) as cache:
            output = run(steps(name), cache, guards=ROOMY)[name]
            os.utime(output.parent / "step.json", (at, at))
    with StepCache(tmp_path) as cache:
        run(steps("a"), cache, guards=ROOMY)
    found = cache.collect(2000)
    assert (found.removed, found.freed_bytes, found.kept_bytes, found.in_use) == (1, 1000, 2000, 0)
    assert names(cache) == {"a", "c"}


def test_what_a_build_uses_stays(tmp_path: Path) -> None:
    """Until its cache is closed: it is packaged after the last step."""
    other = StepCache(tmp_path)
    with StepCache(tmp_path) as cache:
        run(steps("a"), cache, guards=ROOMY)
        assert (other.collect(0).in_use, names(other)) == (1, {"a"})
    assert (other.collect(0).removed, names(other)) == (1, set())
    assert list((tmp_path / "locks").iterdir()) == []


def test_leftovers_of_killed_builders_are_removed_and_a_running_ones_work_stays(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    dead, alive = "d" * 64, "a" * 64
    (tmp_path / "work" / f"{dead}-0000").mkdir(parents=True)
    (tmp_path / "work" / f"{dead}-0000" / "half").write_bytes(b"x" * 10)
    half = tmp_path / "ee" / ("e" * 64)
    half.mkdir(parents=True)
    with cache.make(alive) as work:
        assert work is not None
        assert cache.collect(1 << 40).freed_bytes == 10
        assert [path.name for path in (tmp_path / "work").iterdir()] == [work.folder.name]
    assert not half.exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    """Two holders at once would make one step twice."""
    first = FileLock.take(tmp_path / "lock")
    assert first is not None
    assert FileLock.take(tmp_path / "lock") is None
    first.release(remove=True)
    second = FileLock.take(tmp_path / "lock")
    assert second is not None
    assert FileLock.take(tmp_path / "lock", shared=True) is None
    second.release()


def test_a_cache_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        StepCache(tmp_path / "file" / "cache")


@pytest.mark.parametrize(("named", "count"), [("0,1,2", 3), ("", 0), ("-1", 0), ("GPU-8a, GPU-9b", 2)])
def test_visible_gpus_go_by_cuda_visible_devices(named: str, count: int) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == count

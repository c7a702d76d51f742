"""Steps run in their order, once, with real programs; what stops one says why and leaves nothing half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine_builder.build import Guards, StepCache, Stop, run
from engine_builder.build.history import History
from engine_builder.errors import BuildStoppedError, NoRoomError, StepError, StepTimeoutError
from engine_builder.steps.step import Step, keys
from tests.engine_builder.build.conftest import ROOMY, Watcher, gone, sh

CONVERT = sh("convert", "echo $KIND > {output}/weights; echo converted", environment={"KIND": "bf16"})
COMPILE = sh("compile", "cat {convert}/weights conf/a.json > {output}/rank0.engine", "convert",
             files={"conf/a.json": '{{"from": "{convert}"}}'}, expects=("rank*.engine",))  # fmt: skip


def test_steps_find_what_they_need_and_leave_what_is_expected(cache: StepCache, watcher: Watcher) -> None:
    outputs = run((CONVERT, COMPILE), cache, watcher, guards=ROOMY)
    converted = outputs["convert"]
    assert (outputs["compile"] / "rank0.engine").read_text() == f'bf16\n{{"from": "{converted}"}}'
    assert watcher.lines == [("convert", "converted")]
    assert [one for one in watcher.phases if one[1] != "waiting"] == [
        ("convert", "running"), ("convert", "done"), ("compile", "running"), ("compile", "done"),
    ]  # fmt: skip


def test_what_was_done_is_not_done_again(cache: StepCache, watcher: Watcher, tmp_path: Path) -> None:
    """A step is run anew when anything that goes in has changed, and with it what needs it."""
    runs = tmp_path / "runs"
    first = sh("a", f"echo a >> {runs}; echo 1 > {{output}}/x")
    second = sh("b", f"echo b >> {runs}; cp {{a}}/x {{output}}", "a")
    run((first, second), cache, guards=ROOMY)
    run((first, second), cache, watcher, guards=ROOMY)
    assert watcher.phases == [("a", "cached"), ("b", "cached")]
    assert watcher.told[-1].share == 1.0
    changed = sh("a", f"echo a >> {runs}; echo 1 > {{output}}/x", inputs={"checkpoint": "another digest"})
    run((changed, second), cache, guards=ROOMY)
    assert runs.read_text().split() == ["a", "b", "a", "b"]


def test_an_entry_with_a_file_missing_is_made_anew(cache: StepCache, tmp_path: Path) -> None:
    """Or with one that was cut short."""
    with StepCache(tmp_path / "cache") as before:
        output = run((CONVERT,), before, guards=ROOMY)["convert"]
    (output / "weights").write_text("")
    assert (run((CONVERT,), cache, guards=ROOMY)["convert"] / "weights").read_text() == "bf16\n"


def test_time_that_is_left_goes_by_history(cache: StepCache, watcher: Watcher) -> None:
    """Unknown before each step was seen once."""
    steps = (sh("a", "echo > {output}/x"), sh("b", "sleep 0.4; echo > {output}/x"))
    history = History(cache.root / "history.json")
    history.add(steps[0], 8.0)
    assert History(cache.root / "history.json").expected_s(steps[1]) is None
    run(steps[:1], cache, guards=ROOMY)
    history.add(steps[1], 2.0)
    run(steps, cache, watcher, guards=ROOMY)
    cached, *running, done = watcher.told
    assert (cached.step, cached.eta_s) == ("a", 2.0)
    assert 1.5 < (running[-1].eta_s or 0) < 1.9
    assert done.eta_s == 0.0


def test_a_step_that_fails_says_why_and_keeps_its_log_and_script(cache: StepCache) -> None:
    failing = sh("compile", "echo no such plugin >&2; echo half > {output}/rank0.engine; exit 3")
    with pytest.raises(StepError, match="step 'compile': its program exited with 3") as failed:
        run((failing,), cache, guards=ROOMY)
    assert failed.value.log_end == "no such plugin"
    kept = cache.root / "failed" / f"compile-{keys((failing,))['compile'][:12]}"
    assert str(kept / "repro.sh") in failed.value.remedy
    assert (kept / "step.log").read_text() == "no such plugin\n"
    assert cache.entries() == []
    assert list((cache.root / "work").iterdir()) == []


def test_a_step_that_leaves_too_little_has_failed(cache: StepCache) -> None:
    """Whatever its exit status: what is there is told."""
    step = sh("compile", "echo > {output}/config.json", expects=("config.json", "rank1.engine"))
    with pytest.raises(StepError, match=r"has left no rank1\.engine; there is config\.json"):
        run((step,), cache, guards=ROOMY)
    assert cache.entries() == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((sh("b", "true", "a"),), "needs a"),
        ((sh("a", "true"), sh("a", "true")), "its name is taken"),
        ((Step("a", ("echo", "{b}")),), r"argument 1: \{b\} is neither"),
        ((sh("a", "true", files={"../x": ""}),), "outside of the output"),
        ((sh("a", "true", files={"x.json": "{"}),), "file x.json: a single '{' at 0; write it doubled"),
        ((Step("a", ("trtllm-build-of-old",)),), "program 'trtllm-build-of-old' is not on PATH"),
    ],
)
def test_steps_that_cannot_be_run_are_refused(
    cache: StepCache, steps: tuple[Step, ...], message: str
) -> None:
    with pytest.raises(StepError, match=message):
        run(steps, cache, guards=ROOMY)


def test_programs_get_no_variables_of_ours(cache: StepCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to Redis, with its password, is none of their business."""
    monkeypatch.setenv("ENGINEHOUSE_REGISTRY__REDIS_URL", "redis://:secret@h/0")
    output = run((sh("a", "env > {output}/env"),), cache, guards=ROOMY)["a"]
    assert "secret" not in (output / "env").read_text()
    assert "PATH=" in (output / "env").read_text()


def test_cancelling_ends_the_program_and_what_it_has_started(cache: StepCache, watcher: Watcher) -> None:
    """SIGTERM first, so that it can tidy up; one of another process group, as ranks have, ends too."""
    rank = "import os, time; os.setpgid(0, 0); print(os.getpid(), flush=True); time.sleep(60)"
    code = f"echo $$; {sys.executable} -c '{rank}' & trap 'echo tidied; exit 1' TERM; wait"
    stop = Stop()
    with ThreadPoolExecutor() as thread:
        running = thread.submit(run, (sh("a", code),), cache, watcher, stop=stop, guards=ROOMY, grace_s=5.0)
        watcher.wait(lambda seen: len(seen.lines) == 2)
        stop.now("cancelled by a test")
        with pytest.raises(BuildStoppedError, match="cancelled by a test"):
            running.result()
    assert ("a", "tidied") in watcher.lines
    assert all(gone(int(text)) for _, text in watcher.lines[:2])
    assert list((cache.root / "work").iterdir()) == []


def test_a_program_that_ignores_sigterm_is_killed_after_grace(cache: StepCache, watcher: Watcher) -> None:
    stop = Stop()
    with ThreadPoolExecutor() as thread:
        step = sh("a", "trap '' TERM; echo $$; while :; do sleep 0.05; done")
        running = thread.submit(run, (step,), cache, watcher, stop=stop, guards=ROOMY, grace_s=0.1)
        watcher.wait(lambda seen: seen.lines)
        stop.now("cancelled")
        with pytest.raises(BuildStoppedError):
            running.result()
    assert gone(int(watcher.lines[0][1]))


def test_between_steps_a_build_can_be_ended_without_loss(cache: StepCache, watcher: Watcher) -> None:
    """The step that runs comes to its end, and is there for the next run."""
    go, stop = cache.root / "go", Stop()
    first = sh("a", f"echo on; while [ ! -e {go} ]; do sleep 0.01; done; echo > {{output}}/x")
    with ThreadPoolExecutor() as thread:
        running = thread.submit(run, (first, COMPILE_ALONE), cache, watcher, stop=stop, guards=ROOMY)
        watcher.wait(lambda seen: seen.lines)
        stop.between_steps("the builder ends")
        go.touch()
        with pytest.raises(BuildStoppedError, match="the builder ends"):
            running.result()
    assert [entry.step for entry in cache.entries()] == ["a"]


COMPILE_ALONE = sh("b", "echo > {output}/x")


def test_a_step_that_takes_too_long_is_ended(cache: StepCache, watcher: Watcher) -> None:
    step = sh("a", "echo $$; exec sleep 60", timeout_s=0.3)
    with pytest.raises(StepTimeoutError, match=r"has not ended within 0\.3 s") as late:
        run((step,), cache, watcher, guards=ROOMY)
    assert late.value.log_end == watcher.lines[0][1]
    assert gone(int(watcher.lines[0][1]))


def test_a_step_begins_only_with_room_for_it(cache: StepCache) -> None:
    """Need, have and remedy are named."""
    with pytest.raises(NoRoomError, match=r"'a' needs 1\.0 TiB free at .*, and \d") as full:
        run((sh("a", "true", disk_bytes=1 << 40),), cache, guards=Guards(min_free_disk_bytes=1 << 30))
    assert "--cache" in full.value.remedy
    with pytest.raises(NoRoomError, match=r"needs 1\.0 TiB of memory"):
        run((sh("a", "true", memory_bytes=1 << 40),), cache, guards=Guards(min_free_disk_bytes=0))


def test_a_step_that_fills_the_disk_is_ended(cache: StepCache, watcher: Watcher) -> None:
    """Before others on the machine suffer."""
    free = iter([10 << 30, 1 << 20])
    guards = Guards(1 << 30, 0, disk=lambda _: next(free))
    with pytest.raises(NoRoomError, match=r"needs 1\.0 GiB free"):
        run((sh("a", "echo $$; sleep 60"),), cache, watcher, guards=guards)
    assert gone(int(watcher.lines[0][1]))


def test_gpus_are_counted_where_they_are_needed(cache: StepCache) -> None:
    step = sh("compile", "echo > {output}/x", gpus=4)
    with pytest.raises(StepError, match="needs 4 GPUs, and 1 are visible"):
        run((step,), cache, guards=Guards(0, 0, gpus=lambda: 1))
    run((step,), cache, guards=Guards(0, 0, gpus=lambda: 4))


def test_of_two_builders_at_one_step_one_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    """Nobody sees half of it, and it is made once."""
    runs, watchers = tmp_path / "runs", (Watcher(), Watcher())
    step = sh("a", f"echo run >> {runs}; sleep 0.3; echo whole > {{output}}/x")

    def build(watcher: Watcher) -> str:
        with StepCache(tmp_path / "cache") as cache:
            return (run((step,), cache, watcher, guards=ROOMY)["a"] / "x").read_text()

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(build, watchers)) == ["whole\n", "whole\n"]
    assert runs.read_text() == "run\n"
    assert sorted(watcher.phases[-1][1] for watcher in watchers) == ["cached", "done"]


def test_a_builder_that_is_killed_takes_its_program_along_and_the_next_goes_on(tmp_path: Path) -> None:
    """SIGKILL, in the second of two steps: the first is not run again, the second is not taken for whole."""
    code = f"""
import sys
from pathlib import Path
from engine_builder.build import StepCache, run
from tests.engine_builder.build.test_runner import killed_steps
from tests.engine_builder.build.conftest import ROOMY
with StepCache(Path({str(tmp_path / "cache")!r})) as cache:
    run(killed_steps(Path({str(tmp_path)!r})), cache, guards=ROOMY)
"""
    builder = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "WAIT": "1"})
    try:
        assert _appears(tmp_path / "second.pid")
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    assert gone(int((tmp_path / "second.pid").read_text()))
    with StepCache(tmp_path / "cache") as cache:
        assert [entry.step for entry in cache.entries()] == ["first"]
        outputs = run(killed_steps(tmp_path), cache, guards=ROOMY)
        assert sorted(path.name for path in outputs["second"].iterdir()) == ["a", "b"]
        assert list((cache.root / "work").iterdir()) == []
    assert (tmp_path / "runs").read_text().split() == ["first", "second", "second"]


def killed_steps(folder: Path) -> tuple[Step, ...]:
    """Two steps; the second waits in its midst where `WAIT` is set."""
    pid = f"echo $$ > {folder}/pid && mv {folder}/pid {folder}/second.pid"
    wait = '[ -z "$WAIT" ] || sleep 60'
    second = f"echo second >> {folder}/runs; echo > {{output}}/a; {pid}; {wait}; echo > {{output}}/b"
    return (
        sh("first", f"echo first >> {folder}/runs; echo > {{output}}/x"),
        sh("second", second, "first"),
    )


def _appears(path: Path) -> bool:
    seen = threading.Event()
    for _ in range(2000):
        if path.exists():
            return True
        seen.wait(0.01)
    return False


def test_the_script_of_a_step_runs_it_again(cache: StepCache, tmp_path: Path) -> None:
    """Alone, with its environment and files; and it fails where the step would."""
    odd = sh("odd", "cp 'it'\"'\"'s.txt' {output}/\"$NAME\"", "convert", environment={"NAME": "a b"},
             files={"it's.txt": "50% of {convert}\n"}, expects=("a*",))  # fmt: skip
    outputs = run((CONVERT, odd), cache, guards=ROOMY)
    script = outputs["odd"].parent / "repro.sh"
    again = subprocess.run([script, tmp_path / "again"], capture_output=True, text=True, check=True)
    assert (tmp_path / "again" / "a b").read_text() == (outputs["odd"] / "a b").read_text()
    assert f"left in {tmp_path / 'again'}" in again.stdout
    refused = subprocess.run([script, tmp_path / "again"], capture_output=True, text=True, check=False)
    assert (refused.returncode, "exists" in refused.stderr) == (2, True)
    text = script.read_text()
    broken = tmp_path / "broken.sh"
    broken.write_text(text.replace('"$output"/a*', '"$output"/b*'))
    left = subprocess.run(["sh", broken, tmp_path / "b"], capture_output=True, text=True, check=False)
    assert (left.returncode, left.stderr) == (1, "error: odd has left no a*\n")
    broken.write_text(text.replace("cp ", "cp-no-such "))
    failed = subprocess.run(["sh", broken, tmp_path / "c"], capture_output=True, text=True, check=False)
    assert failed.returncode != 0

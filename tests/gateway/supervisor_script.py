"""A supervisor for the tests of gateway.workers; its arguments: the plan as JSON, a file to say ready in."""

from __future__ import annotations

import errno
import json
import os
import sys
from itertools import count
from multiprocessing.context import ForkProcess
from pathlib import Path

from gateway.workers import WorkersError, WorkersPlan, run_workers
from tests.gateway.worker_script import WORKERS


def fail_fork(number: int) -> None:
    """Let the fork with that number fail as on a machine without memory."""
    numbers, start = count(1), ForkProcess.start

    def start_or_fail(process: ForkProcess) -> None:
        if next(numbers) == number:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        start(process)

    ForkProcess.start = start_or_fail  # type: ignore[method-assign]


def main() -> None:
    settings, ready_file = json.loads(sys.argv[1]), Path(sys.argv[2])
    metrics_dir = settings.pop("metrics_dir", None)
    fail_fork(settings.pop("failing_fork", 0))
    serve = WORKERS[settings.pop("worker")]
    plan = WorkersPlan(serve=serve, **settings, metrics_dir=Path(metrics_dir) if metrics_dir else None)

    def ready(port: int) -> None:
        waiting = ready_file.with_suffix(".new")
        waiting.write_text(str(port))
        waiting.rename(ready_file)

    try:
        run_workers(plan, ready)
    except WorkersError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

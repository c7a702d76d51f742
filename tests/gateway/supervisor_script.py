"""A supervisor for the tests of gateway.workers; its arguments: the plan as JSON, a file to say ready in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.workers import WorkersError, WorkersPlan, run_workers
from tests.gateway.worker_script import WORKERS


def main() -> None:
    settings, ready_file = json.loads(sys.argv[1]), Path(sys.argv[2])
    metrics_dir = settings.pop("metrics_dir", None)
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

"""A supervisor for the tests of gateway.workers; its arguments: the plan as JSON, a file to say ready in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from gateway.workers import WorkersError, WorkersPlan, run_workers


def main() -> None:
    settings, ready_file = json.loads(sys.argv[1]), Path(sys.argv[2])
    metrics_dir = settings.pop("metrics_dir", None)
    plan = WorkersPlan(
        **settings, environment=dict(os.environ), metrics_dir=Path(metrics_dir) if metrics_dir else None
    )

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

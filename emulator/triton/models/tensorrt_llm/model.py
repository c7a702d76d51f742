"""Triton's entry point of the bare engine; the work is in `emulator.triton.bare`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.bare import BareModel as TritonPythonModel  # noqa: F401

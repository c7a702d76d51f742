"""Triton's entry point of the emulated GPU; the work is in `emulator.triton.gpu`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.gpu import GpuModel as TritonPythonModel  # noqa: F401

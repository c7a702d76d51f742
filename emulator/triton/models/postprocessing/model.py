"""Triton's entry point of postprocessing; the work is in `emulator.triton.text_steps`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.text_steps import PostprocessingModel as TritonPythonModel  # noqa: F401

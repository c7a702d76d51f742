"""Triton's entry point of the BLS model; the work is in `emulator.triton.bls`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.bls import BlsModel as TritonPythonModel  # noqa: F401

"""Triton's entry point of an embedding model; the work is in `emulator.triton.encoder`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.encoder import EncoderModel as TritonPythonModel  # noqa: F401

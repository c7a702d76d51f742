"""Triton's entry point of the vLLM backend's model; the work is in `emulator.triton.vllm`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.vllm import VllmModel as TritonPythonModel  # noqa: F401

"""Triton's entry point of the LLM-API model; the work is in `emulator.triton.llmapi`."""

import os
import sys

# Triton's stub runs Python isolated, which leaves PYTHONPATH unread.
sys.path.extend(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)

from emulator.triton.llmapi import LlmApiModel as TritonPythonModel  # noqa: F401

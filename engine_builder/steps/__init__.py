"""From an engine spec to the commands that build it."""

from engine_builder.steps.building import build_steps
from engine_builder.steps.step import OUTPUT, Step, keys
from engine_builder.steps.tools import Tools

__all__ = ["OUTPUT", "Step", "Tools", "build_steps", "keys"]

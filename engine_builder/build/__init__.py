"""Runs the steps of a build: cached, watched, resumed after any death."""

from engine_builder.build.cache import Collected, Entry, StepCache
from engine_builder.build.guards import Guards, visible_gpus
from engine_builder.build.progress import Observer, Phase, Progress, Silent
from engine_builder.build.runner import run
from engine_builder.build.stop import Stop

__all__ = [
    "Collected",
    "Entry",
    "Guards",
    "Observer",
    "Phase",
    "Progress",
    "Silent",
    "StepCache",
    "Stop",
    "run",
    "visible_gpus",
]

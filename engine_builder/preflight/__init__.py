"""What is looked at before a model becomes routable: files first, then a live server."""

from engine_builder.preflight.run import preflight
from engine_builder.preflight.subject import Subject

__all__ = ["Subject", "preflight"]

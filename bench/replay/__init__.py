"""Replays of what the controller decides, in simulated time."""

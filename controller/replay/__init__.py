"""Replay of scaling: recorded traffic against the controller's own decisions, in simulated time."""

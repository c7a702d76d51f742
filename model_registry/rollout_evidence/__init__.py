"""Rollout evidence: what gateway processes have seen of a candidate, told to the controller through Redis."""

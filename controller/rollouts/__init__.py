"""Rollouts: whether a candidate deployment goes on, waits or goes back."""

"""Scaling: how many replicas each deployment should have, and why. Pure."""

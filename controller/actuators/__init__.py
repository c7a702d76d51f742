"""Actuators: how replicas come up and go, one for each type of pool."""

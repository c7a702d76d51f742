"""Replicas: brings them up and down, as many as are wanted, one record before each act."""

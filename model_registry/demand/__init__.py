"""Demand: what gateways see of the load, and what the controller makes of it."""

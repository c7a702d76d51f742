"""Conformance: what every feature of the API does on every lane, found out by asking."""

"""Replay: a trace through the routing code, against a model of the engines, in virtual time."""

"""The quality gate: whether an engine answers as well as its baseline."""

"""Answers on their way to the client: transport, stop strings, choices."""

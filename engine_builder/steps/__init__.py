"""From an engine spec to the commands that build it."""

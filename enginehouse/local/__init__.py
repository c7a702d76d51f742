"""The embedded default: Redis, Triton, controller and gateway on this machine."""

"""The router, live: three real gateways on one Redis, before a real Triton with paced engines."""

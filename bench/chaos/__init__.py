"""Chaos: what clients see when a part of the stack is killed while they stream, and when they leave."""

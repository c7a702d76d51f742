"""Routing policies: the catalogue that profiles choose from by name."""

from router.policies.catalogue import GROUP, PolicyError, make, names

__all__ = ["GROUP", "PolicyError", "make", "names"]

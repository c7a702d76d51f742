"""Residency: which models are in the memory of which server, where not all of them fit."""

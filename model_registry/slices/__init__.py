"""Slices: how many processes share one total without asking anybody when they use their part."""

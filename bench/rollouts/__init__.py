"""The campaign of rollouts: seeded regressions go back in time, clean candidates are promoted, live."""

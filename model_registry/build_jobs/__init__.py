"""Engine builds as Redis keeps them: what was asked for, how far it is, and who works on it."""

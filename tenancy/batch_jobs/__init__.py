"""Batch jobs and their files, as Redis keeps them: whose they are, how far, and who works on what."""

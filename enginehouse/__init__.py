"""The command line, the local stack and the composition of processes."""

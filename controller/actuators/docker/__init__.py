"""Docker: a container of its own for each replica, on one daemon."""

"""Which endpoint serves a request, when and how often."""

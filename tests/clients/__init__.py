"""Clients: SDKs that people use, each holding the same conversation with a real stack."""

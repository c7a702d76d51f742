"""The reconcile loop: introspection, health and registration of endpoints."""

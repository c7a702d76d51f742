"""Kubernetes: sets how many replicas a workload has, and follows where they listen."""

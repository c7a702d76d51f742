"""Writes the dashboards of `deploy/compose/grafana/dashboards` from tables.

Grafana's JSON takes some sixty lines to say a panel's place and look; what differs is a title, expressions
and a unit. After a change: `python -m tools.dashboards`.
"""

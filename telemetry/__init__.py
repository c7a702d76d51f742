"""OpenTelemetry set-up, names, metrics, logs and supervision of background tasks."""

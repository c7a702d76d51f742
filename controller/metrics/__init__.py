"""What a controller shows to Prometheus (docs/metrics.md): replicas, pools, rollouts, builds."""

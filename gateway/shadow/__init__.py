"""Shadow traffic: copies of requests that a rollout's candidate answers, too, and nobody sees."""

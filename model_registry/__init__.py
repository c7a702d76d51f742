"""What exists, what should run and what runs: entities, states, Redis store, snapshot, watcher."""

"""What a run keeps on disk: checkpoints, weights, logs, provenance."""

"""The files of a run: checkpoints, weights, logs, provenance."""

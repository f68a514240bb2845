"""Training runs: building the parts from a config, the training loop, diagnosis and measurement."""

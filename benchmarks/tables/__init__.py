"""Measure when meta-learning on tables is worth it, and write the guide: `python -m benchmarks.tables`."""

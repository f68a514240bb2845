"""When meta-learning on tables is worth it: `python -m benchmarks.tables`, and the page that it writes."""

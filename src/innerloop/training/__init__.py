"""A run: from a config to its parts, the loop, diagnosis, measurements."""

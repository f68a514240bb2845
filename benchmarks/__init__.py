"""Our figures, made again by one command."""

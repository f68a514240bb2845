"""One page about one or more runs: results, curves, examples, settings."""

"""From a config to the parts of a run, for examples, tables and policies."""

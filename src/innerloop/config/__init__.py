"""The settings of a run, as frozen dataclasses."""

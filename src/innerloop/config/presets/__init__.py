"""Presets: the papers' protocols by name."""

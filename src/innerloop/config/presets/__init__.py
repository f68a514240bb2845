"""The papers' protocols by name."""

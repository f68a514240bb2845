"""Gymnasium's environments as a family of tasks."""

"""Adaptation curves of an initialisation on held-out tasks, with their scores and intervals."""

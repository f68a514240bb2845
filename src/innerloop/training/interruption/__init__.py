"""Signals during a run: the state is saved before the process ends."""

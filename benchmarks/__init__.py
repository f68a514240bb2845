"""Reproduce our measurements, one command each."""

"""TRPO's step, and products with the Fisher matrix."""

"""The trust region step and its products with the Fisher matrix."""

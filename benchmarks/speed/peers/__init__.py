"""Contenders in PyTorch, run by the Python of .venv-bench."""

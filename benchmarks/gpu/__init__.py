"""Ours beside PyTorch on one GPU, within a time that is set before."""

"""Compute kernels: the operations whose derivatives of every order must stay fast."""

"""MuJoCo bodies: models, and engines for CPUs and accelerators."""

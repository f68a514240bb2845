"""Bodies in MuJoCo: models, and the engines for CPUs and accelerators."""

"""innerloop: gradient-based meta-learning in JAX."""

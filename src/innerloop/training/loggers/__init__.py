"""Callbacks of `innerloop.fit` that log to services; each needs the extra of its name."""

"""Runs of the user's own algorithm, parameters and tasks: `innerloop.fit`."""

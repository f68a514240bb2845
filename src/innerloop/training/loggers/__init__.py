"""Callbacks for `innerloop.fit` that log to tracking services; each needs the extra of the same name."""

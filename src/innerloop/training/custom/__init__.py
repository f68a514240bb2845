"""Runs on parts of the user's own: `innerloop.fit` for supervised tasks, `fit_policy` for environments."""

"""Runs in folders, from a config or of the user's own parts, and what is measured on them.

- `train` is a run from a config. `experiments` makes its parts, and `warm_start` gives the weights to start from.
- `custom.fit` and `custom.fit_policy` are runs of the user's own parts.
- `loop` trains both: blocks of meta-steps in dispatches of about a second. `progress` times them and tells the user,
  `recording` writes them, and `storage` holds everything that reads or writes a run's folder.
- `interruption` saves a run that is interrupted, `memory` makes it fit into memory, and `diagnosis` reports numbers
  that are not finite.
- `trained` loads what a run has learned, `measure` evaluates it, and `reproduce` repeats the run.
"""

"""Runs in folders, from a config or of the user's own parts, and what is measured on them.

- `train` is a run from a config. `build` makes its parts: `supervised`, `table` or `reinforcement`, each an
  `experiment.Experiment` with its `models` and `optimizers`; `warm_start` gives the weights to start from.
- `fit` is a run of the user's own parts, in `own_run`. `fit_settings` and `fit_programs` describe what must be the same
  when it is resumed; `callbacks`, `loggers`, `best_validation` and `progress_line` belong to it alone.
- `loop` trains both: blocks of meta-steps (`schedule`, `block_log`) in dispatches of about a second (`pace`). A
  `recorder` writes them; `storage` holds everything that reads or writes a run's folder.
- `signals` and its two modules `signal_listener` and `process_end` save a run that is interrupted.
- `memory_plan` makes training fit into memory, by the prediction of `peak_memory`.
- `nan_diagnosis`, `broken_trajectories`, `divergence` and `out_of_memory` report what went wrong.
- `trained` loads what a run has learned, `measure` evaluates it, and `reproduce` repeats the run.
"""

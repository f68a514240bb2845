"""An Optuna sweep over step sizes: every trial is a run of `innerloop.fit`, and bad trials are pruned.

    pip install optuna
    python examples/optuna_sweep.py --folder sweep
    innerloop report sweep/trial-*  # the curves of all trials on one page

Optuna suggests the settings of a trial. A callback reports every validation to it, and stops the run if Optuna would
prune it. A run that diverges is a failed trial, and the sweep continues. Trials are compared on validation tasks; the
best one is then measured once on tasks that no trial has seen. With --folder, Optuna keeps its study in `study.db` next
to the runs: the same command continues a sweep that was stopped, which loses only the run in progress.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import optax
import optuna  # pyright: ignore[reportMissingImports]

from innerloop import (
    MLP,
    Callback,
    InnerLoop,
    InnerloopError,
    Sinusoid,
    evaluate,
    fit,
    load_params,
    maml,
    mean_squared_error,
)

WAVES = Sinusoid(shots=10, queries=10)
MODEL = MLP(1, 1, hidden=(40, 40), key=jax.random.key(0))


def algorithm(rate):
    return maml(mean_squared_error(), InnerLoop(optax.sgd(rate), steps=1))


class Prune(Callback):
    """Reports every validation to Optuna, and stops a run that is worse than others were at this step."""

    def __init__(self, trial):
        self.trial, self.pruned = trial, False

    def on_block(self, progress):
        if "validation_loss" in progress.metrics:
            self.trial.report(progress.metrics["validation_loss"], progress.step)
            self.pruned = self.trial.should_prune()
        return self.pruned


def objective(trial, folder, steps):
    """The best validation loss of one run."""
    inner = trial.suggest_float("inner", 1e-3, 0.3, log=True)
    outer = trial.suggest_float("outer", 1e-4, 1e-2, log=True)
    prune = Prune(trial)
    every = max(1, steps // 10)
    result = fit(
        algorithm(inner),
        MODEL,
        WAVES,
        optimizer=optax.adam(outer),
        meta_batch=10,
        meta_steps=steps,
        folder=folder / f"trial-{trial.number}",
        validation=WAVES,
        validate_every=every,
        log_every=every,
        callbacks=[prune],
        progress=False,
    )
    if prune.pruned:
        raise optuna.TrialPruned
    return min(line["validation_loss"] for line in result.metrics if "validation_loss" in line)


def opened(folder):
    """The study of a sweep with its trials so far, stored in its folder if there is one."""
    storage = None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(study_name="sweep", storage=storage, load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # no repeated suggestions
    return study


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where to keep the study and the runs (default: nowhere)")
    options = parser.parse_args()
    trials, steps = (3, 100) if options.smoke else (options.trials, 3000)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = options.folder or Path(nowhere)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = opened(options.folder)
        left = max(0, trials - sum(trial.state.is_finished() for trial in study.trials))
        study.optimize(lambda trial: objective(trial, folder, steps), n_trials=left, catch=(InnerloopError,))
        best = study.best_trial
        pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
        print(
            f"best of {len(study.trials)} trials ({pruned} pruned): {best.params}, validation loss {best.value:.3f}"
        )
        params = load_params(folder / f"trial-{best.number}", MODEL, "best")
        chosen = algorithm(best.params["inner"])
        curve = evaluate(chosen, params, Sinusoid(10, 100), key=jax.random.key(7), num_tasks=100, chunk=50)
        print(f"on new waves: {curve.mean('loss')[-1]:.3f} ± {curve.ci95('loss')[-1]:.3f}")


if __name__ == "__main__":
    main()

"""All experiments on one trained run, as one plain record; results are cached."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import cached_property

from innerloop.analysis import result_cache
from innerloop.analysis.analyzed_run import AnalyzedRun
from innerloop.analysis.analyzed_run import Request as Request
from innerloop.analysis.experiments import CLOSE, EXPERIMENTS
from innerloop.analysis.progress import ProgressFor, no_progress_for
from innerloop.analysis.verdict import judge
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.untrusted import JsonObject
from innerloop.training.storage.sources import weights_path


class ExperimentRunner(AnalyzedRun):
    """The experiments of one request."""

    @cached_property
    def _hash_of_weights(self) -> str:
        return result_cache.of_file(self.path)

    @cached_property
    def _hash_of_images(self) -> str:
        return result_cache.of_images(self.config)

    def _depends(self, name: str) -> JsonObject:
        """What one experiment's result depends on, besides the code."""
        r = self.request
        found: JsonObject = {"source": self._hash_of_weights, "images": self._hash_of_images}
        found |= {
            "tasks": EXPERIMENTS[name].tasks_of(r.num_tasks),
            "seed": r.seed,
            "shots": r.shots,
            "steps": r.steps,
        }
        if name == "freeze":
            found["frozen"] = r.frozen
        if name in ("early", "paths"):
            found["snapshots"] = {step: result_cache.of_file(path) for step, path in self.snapshots.items()}
        if name == "against" and r.against is not None:
            found["against"] = result_cache.of_file(weights_path(r.against))
        return found

    def fingerprint(self, name: str) -> str:
        """A hash of all that an experiment's result depends on; its name in the cache."""
        return result_cache.key(name, self._depends(name))

    @property
    def unsupported(self) -> dict[str, InnerloopError]:
        """Why this run does not support an experiment, by its name."""
        found = {}
        if self.regression:
            found["nil"] = InnerloopError("nil", "there is no NIL for regression", hint="leave it out")
        if not self.snapshots:
            hint = "train with `outer.snapshots` 10 and analyze the run's folder"
            found["early"] = InnerloopError("early", f"{self.source} has no snapshots", hint=hint)
        if self.request.against is None:
            found["against"] = InnerloopError("against", "needs a second run", hint="give --against RUN")
        return found

    def default(self) -> list[str]:
        """The names of all experiments that this run supports."""
        return [name for name in EXPERIMENTS if name not in self.unsupported]

    def check(self, chosen: Sequence[str]) -> None:
        """Check a choice of experiments before running any.

        Raises:
            InnerloopError: if an experiment or a layer is unknown, or the run does not support an experiment.
        """
        if self.config.data.spec.needs_file:
            wrong = "the experiments read all queries of a task, but those of a table's groups are padded"
            raise InnerloopError(
                "analyze", wrong, got=self.config.data.own, hint="use `evaluate` and `report`"
            )
        for name in chosen:
            check_choice("analyze", "experiment", name, EXPERIMENTS)
        for layer in (layer for names in self.request.frozen for layer in names):
            check_choice("layers", "layer", layer, self.layers)
        for name in chosen:
            if (error := self.unsupported.get(name)) is not None:
                raise error

    def _result(self, name: str, progress_for: ProgressFor, fresh: bool) -> object:
        """The result of one experiment, from the cache unless `fresh`."""
        kept = self.fingerprint(name)
        found = None if fresh else result_cache.load(kept)
        if found is None:
            experiment = EXPERIMENTS[name]
            with progress_for(experiment.title) as on_progress:
                num_tasks = experiment.tasks_of(self.request.num_tasks)
                options = {"num_tasks": num_tasks, "key": self.key, "on_progress": on_progress}
                found = experiment.run(self, options)
            result_cache.save(kept, found)
        return found

    def run(self, only: Sequence[str], *, progress_for: ProgressFor, fresh: Collection[str]) -> JsonObject:
        """Run experiments and give the verdict, as `analyze` does; those in `fresh` are rerun even if cached."""
        chosen = list(only) or self.default()
        self.check(chosen)
        r, config = self.request, self.config
        results: JsonObject = {
            "source": r.source,
            "preset": config.name,
            "algorithm": config.algorithm,
            "metric": "loss" if self.regression else "accuracy",
            "moves": config.spec.adapts,
            "layers": self.layers,
            "ways": None if self.regression else config.data.ways,
            "shots": config.data.shots if r.shots is None else r.shots,
            "inner_steps": config.evaluation.steps if r.steps is None else r.steps,
            "inner_learning_rate": config.inner.learning_rate,
            "normalization": config.evaluation.normalization if config.model.normalizes else None,
            "trained_meta_steps": self.facts.get("meta_steps"),
            "training_seed": config.seed,
            "tasks": r.num_tasks,
            "tasks_looked_at_closely": min(r.num_tasks, CLOSE),
            "seed": r.seed,
        }
        if "against" in chosen:
            results["against_source"] = r.against
        for name in chosen:
            results[name] = self._result(name, progress_for, name in fresh)
        results["fingerprints"] = {name: self.fingerprint(name) for name in chosen}
        found = judge(results)
        if found is not None:
            results["verdict"] = asdict(found)
        return results


def analyze(
    request: Request,
    only: Sequence[str] = (),
    *,
    progress_for: ProgressFor = no_progress_for,
    fresh: bool = False,
) -> JsonObject:
    """Run experiments on a trained model, and give the verdict.

    Args:
        request: what to analyse.
        only: names of experiments in `EXPERIMENTS` (empty: all that the run supports).
        progress_for: progress callbacks.
        fresh: whether to rerun experiments whose results are cached.

    Returns:
        One plain record: the settings, the result of each experiment by its name, hashes of what each was measured with
        (`fingerprints`), and the verdict, if freezing is among them.

    Raises:
        InnerloopError: if an experiment is unknown, or the run does not support it: NIL for regression, `early` without
            snapshots, `against` without a second run.
    """
    return ExperimentRunner(request).run(only, progress_for=progress_for, fresh=EXPERIMENTS if fresh else ())

"""`innerloop.fit_policy`: the run of a policy in an environment that no config describes, in a folder."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_cases import same_bits

import innerloop as il
from innerloop.errors import InnerloopError
from innerloop.rl import (
    Bandit,
    CategoricalPolicy,
    MetaIterations,
    MetaSampler,
    SampleProcessor,
    evaluate_policy,
    gradient_update,
    surrogates,
)
from innerloop.training.custom.fit_recorder import BestRule
from innerloop.training.custom.policy_programs import environment_digest
from innerloop.training.experiments.experiment import held_out_key
from innerloop.training.interruption.signals import Stopped


@dataclass(frozen=True)
class Paying(Bandit):
    """Arms that pay another sum than 1."""

    action_size: int = 3
    horizon: int = 2
    sum: float = 1.0

    def step(self, key: Any, state: Any, action: Any) -> Any:
        after = super().step(key, state, action)
        return after._replace(reward=self.sum * after.reward)


def policy(activation: Any = "relu") -> CategoricalPolicy:
    return CategoricalPolicy(1, 3, hidden=(2,), activation=activation, key=jax.random.key(0))


def algorithm(rate: float = 0.1) -> il.Algorithm:
    return il.maml(surrogates.dice, il.InnerLoop(optax.sgd(rate), steps=1))


def sampler(environment: Any = Paying(), rate: float = 0.1, **changes: Any) -> MetaSampler:  # noqa: B008 (frozen)
    own: dict[str, Any] = {"trajectories": 3}
    return MetaSampler(environment, algorithm(rate), **(own | changes))


def outer_step(rate: float = 0.1):
    return gradient_update(optax.sgd(rate))


def fitted(folder: Path, **changes: Any):
    """The run, with other arguments where they are given."""
    own: dict[str, Any] = {
        "sampler": sampler(),
        "policy": policy(),
        "outer_step": outer_step(),
        "validation": sampler(),
    }
    schedule: dict[str, Any] = {"meta_batch": 2, "meta_steps": 6, "log_every": 2, "checkpoint_every": 6}
    validation: dict[str, Any] = {"validate_every": 2, "validation_tasks": 4}
    return il.fit_policy(**(own | schedule | validation | {"folder": folder, "progress": False} | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that was never interrupted."""
    return fitted(tmp_path_factory.mktemp("runs") / "whole")


def test_fit_policy_matches_meta_iterations_bitwise(whole: Any):
    loop = MetaIterations(sampler(), outer_step(), meta_batch=2)
    state, info = loop.run(loop.init(policy(), jax.random.key(0)), 6)
    same_bits(whole.params, state.params)
    logged = [line["return_after_1"] for line in whole.metrics]
    np.testing.assert_allclose(logged, np.asarray(info.returns)[:, 1].reshape(-1, 2).mean(1), rtol=1e-6)


def test_metrics_hold_returns_and_best_validation(whole: Any):
    assert whole.metrics[0].keys() >= {"return_after_0", "return_after_1", "grad_norm", "kl", "step_length"}
    curve = evaluate_policy(sampler(), whole.params, key=held_out_key(0, "validation"), num_tasks=4)
    assert whole.metrics[-1]["validation_return"] == pytest.approx(curve.mean("return")[-1], rel=1e-6)
    assert whole.best_step == BestRule("return", "max").best_of(whole.metrics).step
    same_bits(whole.best_params, il.load_params(whole.folder, policy(), "best"))


class Stopping(il.Callback):
    """Sends a signal at the first block."""

    def on_block(self, progress: il.Progress) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_policy_run_resumes_bitwise(whole: Any, tmp_path: Path):
    with pytest.raises(Stopped, match="stopped at meta-step 2; state saved"):
        fitted(tmp_path / "run", callbacks=[Stopping()])
    result = fitted(tmp_path / "run", resume=True)
    same_bits(result.state.params, whole.state.params)
    same_bits(result.best_params, whole.best_params)
    assert result.metrics == whole.metrics


CHANGES: dict[str, dict[str, Any]] = {
    "had `seed` 0, got 1": {"seed": 1},
    "had `trajectories` 3, got 4": {"sampler": sampler(trajectories=4)},
    "had `horizon` 2, got 1": {"sampler": sampler(Paying(horizon=1))},
    "had `inner_step_size` 0.1, got 0.2": {"sampler": sampler(rate=0.2)},
    "had `validation.trajectories` 3, got 5": {"validation": sampler(trajectories=5)},
    "the environment changed": {"sampler": sampler(Paying(sum=2.0))},
    "the policy, the sampler, its algorithm or the outer step changed": {"policy": policy("tanh")},
    "the policy, .* or the outer step changed": {"outer_step": outer_step(0.2)},
    "the policy, the sampler, .* changed": {"sampler": sampler(processor=SampleProcessor(discount=0.5))},
    "the environment of validation changed": {"validation": sampler(Paying(sum=2.0))},
    "the sampler of validation changed": {"validation": sampler(processor=SampleProcessor(discount=0.5))},
}


@pytest.mark.parametrize("told", CHANGES)
def test_resume_with_changed_policy_run_raises(told: str, whole: Any, tmp_path: Path):
    shutil.copytree(whole.folder, tmp_path / "run")
    with pytest.raises(InnerloopError, match=f"^resume: .*{told}.*; use the original settings, or another"):
        fitted(tmp_path / "run", resume=True, **CHANGES[told])


@dataclass(frozen=True)
class Hosted(Paying):
    """The same on the host, where no trace sees what is paid."""

    def step(self, key: Any, state: Any, action: Any) -> Any:
        pay = lambda reward: np.asarray(self.sum * np.asarray(reward) + self.sum, np.float32)
        after = Bandit.step(self, key, state, action)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return after._replace(reward=jax.pure_callback(pay, shape, after.reward, vmap_method="broadcast_all"))


def test_environments_on_host_are_compared_by_one_step():
    first, again, other = (environment_digest(Hosted(sum=x), jax.random.key(0)) for x in (1.0, 1.0, 2.0))
    assert first == again != other


def test_broken_trajectories_end_policy_run(tmp_path: Path):
    told = "^fit_policy: the run diverged at meta-step 1: Paying broke in task 0 .* of 12 trajectories broken; lower"
    with pytest.raises(
        il.Diverged, match=f"{told} the step size of the inner loop or that of the outer step.$"
    ):
        fitted(tmp_path / "run", sampler=sampler(Paying(sum=float("inf"))), validation=None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"meta_steps": 0}, "fit_policy: `meta_steps` must be 1 or more, got 0"),
        ({"patience": 3, "validation": None}, "fit_policy: `patience` needs a validation"),
        ({"validation_tasks": 1}, "fit_policy: `validation_tasks` must be 2 or more"),
        ({"policy": {"w": jnp.array([jnp.nan])}}, "fit_policy: parameter `w` holds NaN"),
        ({"validation": sampler(Bandit(4))}, "Bandit: it has 4 actions, got a policy over 3"),
        ({"meta_batch": 3, "chunk": 2}, "`meta_batch` must be a multiple of devices x chunk"),
    ],
)
def test_invalid_arguments_raise_before_writing_files(changes: dict[str, Any], told: str, tmp_path: Path):
    with pytest.raises(InnerloopError, match=told):
        fitted(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_report_shows_returns_of_policy_runs(whole: Any, command, complaint, tmp_path: Path):
    page = tmp_path / "page.html"
    assert command("report", whole.folder, "--out", page)[0] == 0
    text = page.read_text("utf-8")
    assert "Validation by return" in text
    assert "last return" in text
    assert f"{whole.metrics[-1]['return_after_1']:.4g}" in text
    assert "`innerloop.fit` or `fit_policy`, on a model of your own" in complaint("evaluate", whole.folder)

"""The navigation benchmark: the peer's environment and advantages are ours, its numbers are put together rightly."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.accuracy import tables
from benchmarks.rl import meta_iteration
from benchmarks.speed.peers import navigation as peer

from innerloop.config.presets.registry import preset
from innerloop.rl.distributions import Normal
from innerloop.rl.environments import Navigation
from innerloop.rl.rollout import Trajectories
from innerloop.rl.sample_processor import SampleProcessor


@pytest.fixture
def double() -> Iterator[None]:
    """In float64."""
    with jax.enable_x64(True):
        yield


def test_peer_navigation_matches_environment():
    rng = np.random.default_rng(0)
    positions, actions = rng.uniform(-0.5, 0.5, (50, 2)), 2 * rng.normal(size=(50, 2))
    goal = np.array([0.1, -0.2])
    positions[0], actions[0] = goal + 0.02, [-0.15, -0.15]
    key, own = jax.random.key(0), Navigation()
    state = own.reset(key, jnp.array(goal))[0]
    after = jax.vmap(lambda p, a: own.step(key, state._replace(position=p), a))(positions, actions)
    for mine, theirs in zip(
        (after.observation, after.reward, after.done), peer.steps_of(positions, actions, goal), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert after.done[0]
    assert not after.done.all()


@pytest.mark.usefixtures("double")
def test_peer_advantages_match_sample_processor():
    """The advantages of one task's trajectories, some of which end early."""
    rng = np.random.default_rng(1)
    ends = rng.integers(20, 101, 20)
    mask = (np.arange(100)[:, None] < ends).astype(float)
    seen = 0.05 * rng.normal(size=(100, 20, 2)).cumsum(0)
    rewards = -np.linalg.norm(seen, axis=-1) * mask
    across = lambda x: jnp.array(np.swapaxes(x, 0, 1))
    answers = Normal(across(seen), across(0 * seen))
    own = SampleProcessor()(Trajectories(across(seen), answers, across(seen), across(rewards), across(mask)))
    theirs = peer.advantages_of(seen, rewards, mask)
    np.testing.assert_allclose(own.advantages, theirs.T, rtol=1e-6, atol=1e-7)


def test_peer_settings_match_preset():
    c = preset(meta_iteration.PRESET)
    assert (c.outer.meta_batch, c.rl.trajectories, c.rl.horizon) == (
        peer.TASKS,
        peer.TRAJECTORIES,
        peer.HORIZON,
    )
    assert (c.inner.learning_rate, c.rl.max_kl, c.rl.discount) == (peer.RATE, peer.MAX_KL, peer.DISCOUNT)
    assert c.model.hidden == (peer.HIDDEN, peer.HIDDEN)
    assert (c.rl.conjugate_gradients, c.rl.fisher_fraction) == (peer.PRODUCTS, 0.2)


def test_summary_and_ratio_by_hand():
    """80 000 environment steps in an iteration; turns of 5 iterations."""
    ours = meta_iteration.summary([{"seconds": s, "cpu_s": 2 * s} for s in (1.0, 2.0, 6.0)], 5)
    assert ours == {
        "seconds": 0.4,
        "best_seconds": 0.2,
        "cpu_seconds": 0.8,
        "environment_steps_per_second": 200_000,
    }
    peers = meta_iteration.summary([{"seconds": 8.0, "cpu_s": 10.0}], 5)
    assert meta_iteration.ratio({"innerloop": ours, "pytorch": peers}) == {"ratio": 4.0, "cpu_ratio": 2.5}


def test_invalid_arguments_exit_with_2(capsys: pytest.CaptureFixture, tmp_path: Path):
    for words in (["--fisher-fraction", "0"], ["--iterations", "7"], ["--python", str(tmp_path / "none")]):
        assert meta_iteration.main(words) == 2
        assert "meta_iteration: " in capsys.readouterr().err


class Scripted:
    """A contender's process that answers at once."""

    def __init__(self, name: str, argv: list[str], log: Path):
        self.seconds = 1.0 if name == "innerloop" else 5.0

    def ask(self, hint: str, count: int) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu_s": 2 * self.seconds}

    def close(self) -> None: ...


def test_json_record_is_printed_and_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
    """Printed, and kept where the docs' table is made from it."""
    monkeypatch.setattr(meta_iteration, "ContenderProcess", Scripted)
    monkeypatch.setattr(meta_iteration, "RECORD", tmp_path / "speed.json")
    monkeypatch.setattr(meta_iteration, "write_tables", lambda folder: None)
    assert meta_iteration.main(["--python", sys.executable, "--turns", "2", "--write"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "speed.json").read_text()) == record
    told = tables.iteration_table(record).splitlines()
    assert told[2].startswith("| innerloop | 0.20 | 0.40 | 400 000 |")
    assert told[3].startswith("| PyTorch and NumPy | 1.00 | 2.00 | 80 000 |")
    assert record["ratio"] == record["cpu_ratio"] == 5.0
    assert record["innerloop"]["environment_steps_per_second"] == 400_000
    assert record["fisher_fraction"] == preset(meta_iteration.PRESET).rl.fisher_fraction

"""Checkpoints truncated or flipped by a byte, file by file: told, and the one before is used."""

import random
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from innerloop.config.schema import Config
from innerloop.engine.meta_state import MetaState
from innerloop.training.experiments.build import build
from innerloop.training.storage import checkpoint, checkpoint_manager, weights
from innerloop.training.train import train


def flipped(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]


def truncated(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def fresh(config: Config) -> MetaState:
    experiment = build(config)
    return experiment.outer_loop().start(experiment.init_params(), experiment.keys().tasks)


def restored(folder: Path, like: MetaState) -> tuple[MetaState, list[str]]:
    """The state that a resumed run would begin with, and what was said."""
    with warnings.catch_warnings(record=True) as said, checkpoint_manager.opened(folder) as manager:
        warnings.simplefilter("always")
        state = checkpoint.restore(manager, like)
    assert state is not None
    return state, [str(w.message) for w in said if "innerloop:" in str(w.message)]


@pytest.mark.parametrize("damage", [flipped, truncated])
def test_damaged_checkpoint_file_restores_intact_state(
    short: Config, finished: Path, tmp_path: Path, survived, damage
):
    """Either the state is the one that was written, to the bit, or the one before is used and said so."""
    like, draw, tried, told = fresh(short), random.Random(0), 0, 0
    whole = {step: restored_alone(finished, step, like, tmp_path) for step in (8, 12)}
    names = sorted(
        p.relative_to(finished) for p in (finished / "checkpoints" / "12").rglob("*") if p.is_file()
    )
    for name in names:
        for _ in range(4):
            run = tmp_path / "run"
            shutil.copytree(finished / "checkpoints", run / "checkpoints")
            content = (finished / name).read_bytes()
            (run / name).write_bytes(damage(draw, content))
            state, said = restored(run / "checkpoints", like)
            tried += 1
            told += bool(said)
            assert int(state.step) == (8 if said else 12), (name, said)
            assert np.array_equal(checkpoint.digest(checkpoint.as_arrays(state)), whole[int(state.step)]), (
                name
            )
            assert (run / "damaged").exists() == bool(said)
            assert said or name.parent.parts[-2:] != ("default", "d"), name  # there the state is
            shutil.rmtree(run)
    assert 0 < told < tried
    outcome = f"{told} reported, the checkpoint before used; {tried - told} in bytes that hold no state"
    survived(f"a file of a checkpoint {damage.__name__}", tried, outcome, "one checkpoint interval")


def restored_alone(finished: Path, step: int, like: MetaState, tmp_path: Path) -> np.ndarray:
    """What a sound checkpoint of this step holds."""
    shutil.copytree(finished / "checkpoints" / str(step), tmp_path / "alone" / str(step))
    state, said = restored(tmp_path / "alone", like)
    shutil.rmtree(tmp_path / "alone")
    assert said == []
    return checkpoint.digest(checkpoint.as_arrays(state))


def test_run_resumes_from_checkpoint_before_damaged_one(
    short: Config, finished: Path, tmp_path: Path, survived
):
    """Its last meta-steps are made again, and end with the same weights."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "weights.safetensors").unlink()
    for path in (run / "checkpoints" / "12" / "default").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="checkpoint 12: .* The checkpoint of meta-step 8 is used instead"):
        train(None, run, resume=True)
    a, b = (weights.load(path / "weights.safetensors")[0] for path in (run, finished))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert [path.name for path in (run / "damaged").iterdir()] == ["12-0"]
    survived(
        "a run resumed on a damaged checkpoint",
        1,
        "the run ends with the same bits",
        "one checkpoint interval",
    )

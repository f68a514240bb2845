"""Checkpoints that somebody else has made: their files, chunks and configs."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore
from tests.attacks.hostile_files import KINDS, make, small

from innerloop.config.schema import Config
from innerloop.config.serialization import to_json
from innerloop.engine import meta_state
from innerloop.errors import InnerloopError
from innerloop.training.storage import checkpoint, checkpoint_manager
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train


def run_with(folder: Path, config: Config) -> RunFolder:
    """A run of a few numbers with its checkpoint, and the config."""
    from innerloop.training.experiments.build import build

    run = RunFolder(folder)
    run.create(small())
    experiment = build(small())
    loop = experiment.outer_loop()
    state = loop.start(experiment.init_params(), experiment.keys().tasks)
    with checkpoint_manager.opened(run.checkpoints) as checkpoints:
        checkpoint.save(checkpoints, state._replace(step=jnp.asarray(7, jnp.int32)))
        checkpoint.finish(checkpoints)
    (folder / "config.json").write_text(json.dumps(json.loads(to_json(config))))
    return run


@pytest.mark.parametrize("hidden", [(30_000, 30_000), (1,) * 20_000])
def test_config_larger_than_checkpoint_is_rejected(tmp_path: Path, bounded, hidden):
    with pytest.raises(InnerloopError, match="larger model than the checkpoints|hidden"):
        train(None, run_with(tmp_path / "run", small(hidden=hidden)).path, resume=True)


@pytest.mark.parametrize("kind", [*KINDS, "inside"])
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "default/_METADATA", "default/manifest.ocdbt"])
def test_non_regular_checkpoint_files_are_rejected(checkpoint_files: Path, name: str, kind: str, bounded):
    path = checkpoint_files / "7" / name
    whole = path.read_bytes()
    path.unlink()
    if kind == "inside":
        path.symlink_to(checkpoint_files / "7" / "commit_success.txt")
    else:
        make(path, kind)
    try:
        with pytest.raises(InnerloopError, match="regular file|larger than the bound|takes more than"):
            read_state(checkpoint_files)
    finally:
        path.unlink()
        path.write_bytes(whole)
        read_state(checkpoint_files)


def fresh(params: Any, optimizer: optax.GradientTransformation) -> meta_state.MetaState:
    return meta_state.MetaState(params, optimizer.init(params), jax.random.key(1), jnp.asarray(0, jnp.int32))


def read_state(folder: Path) -> None:
    state = fresh({"x": jnp.ones(3)}, optax.adam(0.1))
    with checkpoint_manager.opened(folder) as checkpoints:
        checkpoint.read(checkpoints, 7, state)


def test_checkpoint_with_oversized_chunks_is_rejected(tmp_path: Path, checkpoint_files: Path, bounded):
    """Forty megabytes of zeros in a few bytes; it may as well be terabytes."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoint_files, folder)
    metadata = {"shape": [3], "chunks": [10_000_000], "dtype": "<f4", "compressor": {"id": "zstd"}}
    place = {"driver": "ocdbt", "base": f"file://{folder}/7/default/", "path": "params/x/"}
    spec = {"driver": "zarr", "kvstore": place, "metadata": metadata, "create": True, "delete_existing": True}
    tensorstore.open(spec).result()[...] = np.zeros(3, np.float32)
    with pytest.raises(InnerloopError, match="`params/x` is stored in chunks larger than the array"):
        read_state(folder)


@pytest.fixture(scope="module")
def checkpoint_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    state = fresh({"x": jnp.ones(3)}, optax.adam(0.1))
    with checkpoint_manager.opened(folder) as checkpoints:
        checkpoint.save(checkpoints, state._replace(step=jnp.asarray(7, jnp.int32)))
        checkpoint.finish(checkpoints)
    return folder

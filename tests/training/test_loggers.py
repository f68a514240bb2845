"""Callbacks that log to services, on stand-ins for their packages: nothing is sent, and none need be installed."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from innerloop.errors import InnerloopError
from innerloop.training.interruption.signals import Stopped
from innerloop.training.progress.progress import Progress

SETTINGS = {"seed": 3, "parameters": {"w": "float32[2]"}, "outer": {"meta_batch": 4}}
PROGRESS = Progress(4, 8, 1.0, 1.0, {"outer_loss": 0.5})


class Service(SimpleNamespace):
    """Keeps the calls of its methods; a run of it is the service itself."""

    def __init__(self):
        super().__init__(calls=[], id="r1", name="r1")

    def __getattr__(self, name: str):
        def call(*words: Any, **named: Any) -> Any:
            self.calls.append((name, *words, named))
            return None if name == "get_experiment_by_name" else "e1" if name == "create_experiment" else self

        return call

    def named(self, name: str) -> list[Any]:
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """In place of each of the packages."""
    own = Service()
    own.info = SimpleNamespace(run_id="r1")
    own.entities = SimpleNamespace(Metric=lambda name, value, time, step: (name, value, step))
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, own)
    return own


def logger(name: str) -> Any:
    module = import_module(f"innerloop.training.loggers.{name}")
    return getattr(module, f"{name.capitalize()}Logger")("own")


def sitting(name: str, folder: Path, step: int, error: BaseException | None = None) -> None:
    own = logger(name)
    own.on_start(folder, SETTINGS, step)
    own.on_block(PROGRESS)
    own.on_end(error)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_missing_package_error_names_extra(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InnerloopError, match=rf"^{name}: needs the package `{name}`, .* pip install 'innerloop\[{name}\]'"
    ):
        logger(name)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_run_id_is_reused_only_when_resuming(name: str, service: Service, tmp_path: Path):
    from innerloop.training.loggers.service import kept_id

    sitting(name, tmp_path, 0)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == {"id": "r1"}
    assert kept_id(tmp_path, name, 4) == "r1"
    assert kept_id(tmp_path, name, 0) is None
    (tmp_path / f"{name}.json").write_text('{"id": 3}')
    with pytest.raises(InnerloopError, match="must hold the `id` of a run, got 3"):
        sitting(name, tmp_path, 4)


def test_wandb(service: Service, tmp_path: Path):
    sitting("wandb", tmp_path, 0)
    sitting("wandb", tmp_path, 4, ValueError())
    own = {"project": "own", "config": SETTINGS, "name": tmp_path.name, "resume": "allow"}
    assert service.named("init") == [({**own, "id": None},), ({**own, "id": "r1"},)]
    assert service.named("define_metric")[0] == ("*", {"step_metric": "meta_step"})
    assert service.named("log")[0] == ({"meta_step": 4, "outer_loss": 0.5}, {})
    assert service.named("finish") == [({"exit_code": 0},), ({"exit_code": 1},)]


def test_mlflow(service: Service, tmp_path: Path):
    sitting("mlflow", tmp_path, 0)
    sitting("mlflow", tmp_path, 4, Stopped(15, 4, tmp_path))
    sitting("mlflow", tmp_path, 4, ValueError())
    assert service.named("create_run") == [("e1", {"run_name": tmp_path.name})]
    assert service.named("log_param") == [("r1", "seed", 3, {}), ("r1", "outer.meta_batch", 4, {})]
    assert service.named("log_batch")[0] == ("r1", {"metrics": [("outer_loss", 0.5, 4)]})
    ends = [call[1] for call in service.named("set_terminated")]
    assert ends == ["FINISHED", "KILLED", "FAILED"]


def test_trackio(service: Service, tmp_path: Path):
    sitting("trackio", tmp_path, 0)
    sitting("trackio", tmp_path, 4)
    names = [(call[0]["name"], call[0]["resume"]) for call in service.named("init")]
    assert names == [(tmp_path.name, "never"), ("r1", "must")]
    assert service.named("log")[0] == ({"outer_loss": 0.5}, {"step": 4})
    assert len(service.named("finish")) == 2

import pytest

from innerloop.cli import main

GLYPHS = ("--model.kind", "mlp", "--model.hidden", "16", "--model.normalize", "--outer.meta-steps", "4")
GLYPHS += ("--outer.log-every", "2", "--outer.meta-batch", "2", "--evaluation.validation-tasks", "4")
GLYPHS += ("--outer.snapshots", "2", "--evaluation.steps", "2")


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run on glyphs with snapshots."""
    folder = tmp_path_factory.mktemp("runs") / "glyphs"
    assert main(["train", "glyphs-5way-1shot-fomaml", *GLYPHS, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Kept results of this test alone."""
    monkeypatch.setattr("innerloop.analysis.result_cache._folder", lambda: tmp_path / "store")
    return tmp_path / "store"

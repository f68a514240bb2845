import pytest

from innerloop.cli import main
from innerloop.report import collect

SHORT = ("--outer.meta-steps", "2", "--outer.log-every", "2", "--evaluation.validation-tasks", "4")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of two runs on sinusoids and one on glyphs."""
    root = tmp_path_factory.mktemp("runs")
    settings = {
        "sinusoid-maml": ("--evaluation.steps", "14"),
        "sinusoid-joint": ("--evaluation.steps", "1"),
        "glyphs-5way-1shot-fomaml": ("--model.kind", "mlp", "--model.hidden", "32", "--model.normalize"),
    }
    for name, changes in settings.items():
        assert main(["train", name, *SHORT, *changes, "--folder", str(root / name)]) == 0
    return [root / name for name in settings]


@pytest.fixture(scope="session")
def groups(runs):
    """All runs measured on a few tasks, grouped by problem."""
    return collect.gather(collect.load(runs), 6)

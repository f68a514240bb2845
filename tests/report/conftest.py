import pytest

from innerloop.cli import main
from innerloop.report import measurements
from innerloop.training.trained import load_trained

SHORT = ("--outer.meta-steps", "2", "--outer.log-every", "2", "--evaluation.validation-tasks", "4")


@pytest.fixture(scope="session")
def runs(tmp_path_factory, quickly):
    """Folders of two runs on sinusoids and one on glyphs."""
    root = tmp_path_factory.mktemp("runs")
    settings = {
        "sinusoid-maml": ("--model.hidden", "8", "--evaluation.steps", "14"),
        "sinusoid-joint": ("--model.hidden", "8", "--evaluation.steps", "1"),
        "glyphs-5way-1shot-fomaml": ("--model.kind", "mlp", "--model.hidden", "32", "--model.normalize"),
    }
    for name, changes in settings.items():
        with quickly():
            assert main(["train", name, *SHORT, *changes, "--folder", str(root / name)]) == 0
    return [root / name for name in settings]


@pytest.fixture(scope="session")
def groups(runs, quickly):
    """All runs measured on a few tasks, grouped by problem."""
    with quickly():
        return measurements.gather([load_trained(run) for run in runs], 6)

import pytest

from innerloop.cli import main
from innerloop.report import measurements
from innerloop.training.trained import load_trained

SHORT = ("--outer.meta-steps", "2", "--outer.log-every", "2", "--evaluation.validation-tasks", "4")


@pytest.fixture(scope="session")
def runs(built_once, quickly):
    """Folders of two runs on sinusoids and one on glyphs."""
    settings = {
        "sinusoid-maml": ("--evaluation.steps", "14"),
        "sinusoid-joint": ("--evaluation.steps", "1"),
        "glyphs-5way-1shot-fomaml": ("--model.kind", "mlp", "--model.hidden", "32", "--model.normalize"),
    }

    def train(folder):
        with quickly():
            assert main(["train", folder.name, *SHORT, *settings[folder.name], "--folder", str(folder)]) == 0

    return [built_once(f"report/{name}", train) for name in settings]


@pytest.fixture(scope="session")
def groups(runs, quickly):
    """All runs measured on a few tasks, grouped by problem."""
    with quickly():
        return measurements.gather([load_trained(run) for run in runs], 6)

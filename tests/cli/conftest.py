import pytest

from innerloop.cli import main

SINUSOID = ("sinusoid-maml", "--outer.meta-steps", "200", "--outer.log-every", "100")
SINUSOID += (
    "--outer.validate-every",
    "200",
    "--evaluation.validation-tasks",
    "20",
    "--evaluation.steps",
    "2",
)
GLYPHS = ("glyphs-5way-1shot-fomaml", "--outer.meta-steps", "4", "--outer.log-every", "2")
GLYPHS += ("--model.kind", "mlp", "--model.hidden", "16", "--model.normalize")
GLYPHS += ("--outer.meta-batch", "2", "--evaluation.validation-tasks", "4")


@pytest.fixture
def sinusoid_words():
    return SINUSOID


@pytest.fixture(scope="session")
def sinusoid_run(tmp_path_factory, quickly):
    folder = tmp_path_factory.mktemp("runs") / "waves"
    with quickly():
        assert main(["train", *SINUSOID, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def glyph_run(tmp_path_factory, quickly):
    folder = tmp_path_factory.mktemp("runs") / "glyphs"
    with quickly():
        assert main(["train", *GLYPHS, "--folder", str(folder)]) == 0
    return folder

"""Run each notebook's cells in one namespace, and one notebook in a kernel if Jupyter is installed."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 20_000
"""Largest notebook in bytes; notebooks are stored without outputs."""


def cells(path: Path, kind: str) -> list[str]:
    return [
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "notebook"}
    try:
        for number, code in enumerate(cells(path, "code"), 1):
            exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
        assert all(plt.figure(number).axes for number in plt.get_fignums())
        assert len(plt.get_fignums()) > 1
    finally:
        plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    text = path.read_text()
    book = json.loads(text)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    identities = [cell["id"] for cell in book["cells"]]
    assert len(set(identities)) == len(identities)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in identities)
    for cell in book["cells"]:
        common = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert set(cell) == common | {"outputs", "execution_count"}
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
        else:
            assert set(cell) == common
            assert cell["cell_type"] == "markdown"
    assert len(text) < LARGEST
    assert cells(path, "markdown")[0].startswith("# ")


def test_notebook_list_is_complete() -> None:
    stems = {path.stem for path in NOTEBOOKS}
    assert stems == {"sinusoid", "own_pictures", "own_table", "own_model", "why_it_works"}


SLOW_FIT = """
import time, jax, optax, innerloop as il
from innerloop.training.progress import progress_line
progress_line.QUIET = 0.0
class Wait(il.Callback):
    def on_block(self, progress):
        time.sleep(0.1)
model = il.MLP(1, 1, hidden=(4,), key=jax.random.key(0))
il.fit(il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.01), steps=1)), model, il.Sinusoid(5, 5),
       optimizer=optax.adam(1e-3), meta_batch=2, meta_steps=20, log_every=1, folder=FOLDER, callbacks=[Wait()])
print("after")
"""


def test_progress_in_kernel_is_one_line(tmp_path: Path) -> None:
    """Jupyter keeps one output in its final state, below the cell."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    code = f"FOLDER = {str(tmp_path / 'run')!r}\n{SLOW_FIT}"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    told, after = book.cells[0].outputs
    assert told.output_type == "display_data"
    assert told.data["text/plain"].startswith("fit: 20/20 meta-steps, done")
    assert after.text == "after\n"


def test_notebook_shows_figures_in_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures at the end of its cells are shown."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    book = nbformat.read(ROOT / "docs" / "notebooks" / "own_table.ipynb", as_version=4)
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    pictures = [o for cell in book.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2

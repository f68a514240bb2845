import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def unchecked_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it, without run-time checks of signatures: wrong types must be refused in words."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no data folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INNERLOOP_CACHE", str(folder))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    return folder


@pytest.fixture(scope="module")
def real_data(tmp_path_factory: pytest.TempPathFactory):
    """The real data sets, and a cache of this module's own, empty at first."""
    if not os.environ.get("INNERLOOP_DATA"):
        pytest.skip("INNERLOOP_DATA names no folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INNERLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["INNERLOOP_DATA"])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be downloaded: the first attempt is the last and fails."""
    import pooch

    def fetch(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
    monkeypatch.setattr("innerloop.tasks.io.download.RETRIES", 0)


@pytest.fixture
def picture_tree() -> Callable[..., None]:
    """Write `root/CLASS/NN.png` files: `counts` pictures per class, every pixel naming class and number."""

    def make(root: Path, counts: dict[str, int], size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
        for c, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True, exist_ok=True)
            for n in range(count):
                colour = 10 * c + n if mode == "L" else (10 * c + n, 100, 200)
                Image.new(mode, size, colour).save(root / name / f"{n:02}.png")

    return make


@pytest.fixture
def zip_of() -> Callable[[Path, dict[str, bytes]], Path]:
    def make(path: Path, members: dict[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    return make


@pytest.fixture
def some_arrays():
    from innerloop.tasks.datasets import ClassArrays

    rng = np.random.default_rng(0)
    per_class = [rng.integers(0, 255, (n, 4, 3, 1), np.uint8) for n in (2, 5, 1, 3)]
    return ClassArrays.from_lists(per_class, ["a", "b", "c", "d"])

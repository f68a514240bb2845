import hashlib
from pathlib import Path

import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import cifar, omniglot
from innerloop.tasks.io import download
from innerloop.tasks.io.cache import cached
from innerloop.tasks.io.download import Source, locate

CONTENT = b"the official archive"
SOURCE = Source("sub/file.bin", "https://example.org/file.bin", hashlib.md5(CONTENT).hexdigest())


def put(folder: Path) -> Path:
    path = folder / SOURCE.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Answer every download with `content`, as the HTTP downloader would; gives the addresses asked."""
    import pooch

    asked: list[str] = []

    def fetch(self, url: str, output_file: str, keeper: object, check_only: bool = False) -> None:
        asked.append(url)
        self.progressbar.total = len(content)
        for _ in content:
            self.progressbar.update(1)
        self.progressbar.reset()
        self.progressbar.update(len(content))
        self.progressbar.close()
        Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
    monkeypatch.setattr(download, "RETRIES", 0)
    return asked


def test_locate_searches_folders_in_order(empty_cache, tmp_path, monkeypatch, offline):
    in_cache = put(empty_cache)
    assert locate(SOURCE) == [in_cache]
    in_root = put(tmp_path / "root")
    assert locate(SOURCE, root=tmp_path / "root") == [in_root]
    named = put(tmp_path / "named")
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "named"))
    assert locate(SOURCE, root=tmp_path / "root") == [named]
    named.unlink()
    assert locate(SOURCE, root=tmp_path / "root") == [in_root]


def test_missing_file_is_downloaded_once(empty_cache, monkeypatch):
    asked = serve(monkeypatch, CONTENT)
    assert locate(SOURCE) == locate(SOURCE) == [empty_cache / "sub" / "file.bin"]
    assert asked == [SOURCE.url]
    assert (empty_cache / "sub" / "file.bin").read_bytes() == CONTENT


def test_download_with_wrong_checksum_is_discarded(empty_cache, monkeypatch):
    serve(monkeypatch, b"something else")
    with pytest.raises(InnerloopError, match="could not be downloaded.*hash"):
        locate(SOURCE)
    assert not (empty_cache / "sub" / "file.bin").exists()


def test_offline_error_explains_manual_download(empty_cache, offline):
    with pytest.raises(InnerloopError) as caught:
        locate(SOURCE)
    for part in (SOURCE.url, str(empty_cache / SOURCE.path), "INNERLOOP_DATA", "ConnectionError"):
        assert part in str(caught.value)


@pytest.mark.parametrize("load", [omniglot.load, cifar.load])
def test_offline_dataset_load_raises(empty_cache, offline, load):
    with pytest.raises(InnerloopError, match="set INNERLOOP_DATA"):
        load()


def test_missing_data_folders_raise(empty_cache, tmp_path, monkeypatch):
    with pytest.raises(InnerloopError, match="root: must name an existing folder"):
        locate(SOURCE, root=tmp_path / "none")
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "none"))
    with pytest.raises(InnerloopError, match="INNERLOOP_DATA: must name an existing folder"):
        locate(SOURCE)


def test_cache_folder_has_a_default(monkeypatch):
    monkeypatch.delenv("INNERLOOP_CACHE", raising=False)
    assert download.cache_folder().name == "innerloop"


def test_download_progress_goes_to_stderr(empty_cache, monkeypatch, capsys):
    serve(monkeypatch, CONTENT)
    locate(SOURCE)
    out, err = capsys.readouterr()
    assert out == ""
    assert "downloading sub/file.bin" in err


def test_failed_download_stops_progress_bar(empty_cache, monkeypatch):
    """Rich hides the cursor and repaints the bar in a thread until it is stopped."""
    import pooch

    bars = []

    def fetch(self, *args: object, **kwargs: object) -> None:
        bars.append(self.progressbar.bar)
        self.progressbar.update(1)
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
    monkeypatch.setattr(download, "RETRIES", 0)
    with pytest.raises(InnerloopError, match="reset by peer"):
        locate(SOURCE)
    assert [bar.live.is_started for bar in bars] == [False]


UNREACHABLE = "x" * 300
"""Too long for the name of a folder: like a private folder, it cannot even be looked up."""


def test_unreachable_folders_warn_or_raise(some_arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / UNREACHABLE))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    with pytest.warns(UserWarning, match="continuing without a cache"):
        assert cached("a", "test", lambda: some_arrays) is some_arrays
    with pytest.raises(InnerloopError, match="is not in .*, and could not be downloaded"):
        locate(SOURCE)
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / UNREACHABLE))
    with pytest.raises(InnerloopError, match="INNERLOOP_DATA: must name an existing folder"):
        locate(SOURCE)


def test_official_checksums():
    assert omniglot.BACKGROUND.md5 == "68d2efa1b9178cc56df9314c21c6e718"
    assert omniglot.EVALUATION.md5 == "6b91aef0f799c5bb55b94e3f2daec811"
    assert cifar.ARCHIVE.md5 == "03b5dce01913d631647c71ecec9e9cb8"

"""A hook of MkDocs: the site holds a copy of the page that `innerloop demo` opens, as `demo/index.html`."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGE = Path(__file__).resolve().parents[1] / "src" / "innerloop" / "report" / "demo"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page's files to those of the site."""
    for path in sorted(PAGE.iterdir()):
        files.append(File.generated(config, f"demo/{path.name}", abs_src_path=str(path)))
    return files

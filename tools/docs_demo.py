"""MkDocs hook: copy the page that `innerloop demo` opens to the site, as `demo/index.html`."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGE = Path(__file__).resolve().parents[1] / "src" / "innerloop" / "report" / "demo"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page's files to the site."""
    for path in sorted(PAGE.iterdir()):
        files.append(File.generated(config, f"demo/{path.name}", abs_src_path=str(path)))
    return files

"""MkDocs hook: generate pages from the notebooks, the examples and the changelog, so that no text is duplicated."""

import ast
import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
    for path in examples():
        files.append(File.generated(config, f"examples/{path.stem}.md", content=example_page(path)))
    files.append(File.generated(config, "changelog.md", content=changelog_page()))
    return files


def changelog_page() -> str:
    """The changelog with links relative to the documentation; files that are not pages lose their links."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](")
    return re.sub(r"\[([^\]]+)\]\([A-Z]+\.md\)", r"\1", text)


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, and its code in blocks."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    title, *rest = parts
    head, _, text = title.partition("\n")
    link = f"[Download this notebook]({path.name}); it runs from top to bottom in seconds."
    return "\n\n".join([head, link, text, *rest]) + "\n"


def examples() -> list[Path]:
    """Every example: a file or a package."""
    found = (ROOT / "examples").iterdir()
    return sorted(p for p in found if p.suffix == ".py" or (p / "__main__.py").is_file())


def example_page(path: Path) -> str:
    """An example as Markdown: its title and summary, and its files in blocks."""
    files = [path] if path.is_file() else sorted(path.glob("*.py"), key=lambda p: p.stem != "__main__")
    title = path.stem.replace("_", " ").capitalize()
    parts = [f"# {title}", summary(files[0])]
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        parts.append(f'```python title="{name}"\n{file.read_text("utf-8").strip()}\n```')
    return "\n\n".join(parts) + "\n"


def summary(path: Path) -> str:
    """The first paragraph of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")[0]

"""Test the README and the documentation: the code runs, and the commands, options, links and pages exist."""

import ast
import importlib
import importlib.metadata
import re
import tomllib
from functools import cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import innerloop
from innerloop import algorithms, analysis, rl
from innerloop.cli import COMMANDS, main
from innerloop.config.presets.registry import all_presets
from innerloop.report import plots
from innerloop.tasks import datasets

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
ALONE = [
    ROOT / "docs" / "guides" / f"{name}.md"
    for name in ("more-inner-loops", "own-models", "debugging", "tables")
]
"""Pages whose code blocks are separate programs."""
ALGORITHM_PAGES = ROOT / "docs" / "reference" / "algorithms"
API_PAGES = ROOT / "docs" / "reference" / "api"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands() -> list[list[str]]:
    """Every `innerloop ...` line in the console blocks, split into words."""
    lines = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    told = [line.removeprefix("$ ").split("#")[0].split() for line in lines]
    return [words for words in told if words[:1] == ["innerloop"]]


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") and p not in ALONE], ids=name_of)
def test_page_code_runs(page: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, name_of(page), "exec"), names)
    assert len(names) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        pytest.param(code, id=f"{page.stem}-{i}")
        for page in ALONE
        for i, code in enumerate(blocks(page, "python"))
    ],
)
def test_code_block_runs_alone(block: str) -> None:
    exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_readme_example_has_at_most_twenty_lines() -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_installation_page_lists_extras_and_minimum_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "getting-started" / "installation.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.M)) == sorted(project["optional-dependencies"])
    told = re.findall(r"(Python|JAX)(?: has to be)?\s([\d.]+) or later", page)
    jax = next(name for name in project["dependencies"] if name.startswith("jax>="))
    assert told == [("Python", project["requires-python"].lstrip(">=")), ("JAX", jax.removeprefix("jax>="))]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in ROOT.glob("docs/**/*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation


def test_navigation_has_notebooks_examples_and_changelog() -> None:
    """`tools/docs_pages.py` generates their pages."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    examples = {path.stem for path in (ROOT / "examples").glob("*.py")}
    examples |= {path.parent.name for path in (ROOT / "examples").glob("*/__main__.py")}
    shown = set(re.findall(r": examples/(\w+)\.md", navigation))
    assert shown == examples
    books = {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r": notebooks/(\w+)\.md", navigation)) == books
    assert ": changelog.md" in navigation


def test_site_works_offline() -> None:
    """Search needs a shim when the site is opened as local files; the plugin would download its own."""
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "\n  - offline" in settings
    (shim,) = re.findall(r"- (assets/\S*iframe-worker\S*)", settings)
    assert "location.protocol" in (ROOT / "docs" / shim).read_text()


def test_gallery_shows_every_figure() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text()
    figures = {path.name for path in (ROOT / "docs" / "figures" / "gallery").iterdir()}
    assert set(re.findall(r"\(figures/gallery/([\w.-]+)\)", page)) == figures
    assert set(re.findall(r"^`(\w+)`$", page, re.M)) <= set(vars(plots))


@pytest.mark.parametrize("name", algorithms.__all__)
def test_every_algorithm_has_a_page(name: str) -> None:
    text = (ALGORITHM_PAGES / f"{name}.md").read_text()
    for part in ("meta-gradient", "## Use", "## What is tested", "## Left out", "## Reference"):
        assert part in text
    assert f"`src/innerloop/algorithms/{name}.py`" in text
    assert f"[`{name}.py`](src/innerloop/algorithms/{name}.py)" in (ROOT / "README.md").read_text()


def test_every_algorithm_page_has_an_algorithm() -> None:
    assert {page.stem for page in ALGORITHM_PAGES.glob("*.md")} == set(algorithms.__all__)


def test_documented_commands_exist() -> None:
    told = commands()
    assert {words[1] for words in told} == set(COMMANDS)
    presets = all_presets()
    for words in told:
        if words[1] == "train" and not words[2].startswith("-"):
            assert words[2] in presets


@cache
def help_of(command: str) -> str:
    import contextlib
    import io

    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        code = main([command, *(["sinusoid-maml", "-H"] if command == "train" else ["--help"])])
    assert code == 0
    return told.getvalue()


def options() -> list[tuple[str, str]]:
    found = {(words[1], word) for words in commands() for word in words[2:] if word.startswith("--")}
    return sorted(found)


@pytest.mark.parametrize(("command", "option"), options())
def test_documented_options_exist(command: str, option: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_of(command))


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z]+)`|^\$ make ([a-z]+)", page.read_text(), re.MULTILINE):
            assert (target[0] or target[1]) in targets


def test_api_index_names_every_public_object() -> None:
    told = set(re.findall(r"`(\w+)`", (API_PAGES / "index.md").read_text()))
    assert set(innerloop.HOMES) - told == set()


def documented() -> list[str]:
    """Every object that an API page shows."""
    return [
        name
        for page in sorted(API_PAGES.glob("*.md"))
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    ]


def found(path: str) -> object:
    """The module, or the object in a module, at a dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        home, name = path.rsplit(".", 1)
        return getattr(importlib.import_module(home), name)


def test_api_pages_document_every_public_object() -> None:
    shown = documented()
    assert len(shown) == len(set(shown))
    objects = [found(path) for path in shown]
    for name in innerloop.HOMES:
        assert any(getattr(innerloop, name) is one for one in objects), name
    for package in (analysis, plots, rl):
        for name, value in vars(package).items():
            if not name.startswith("_") and not isinstance(value, ModuleType):
                assert any(value is one for one in objects), name


def packages(path: str) -> list[ModuleType]:
    """The packages that contain the module of an object, from the inside out."""
    home = path.rsplit(".", 1)[0]
    modules = [importlib.import_module(home.rsplit(".", n)[0]) for n in range(home.count(".") + 1)]
    return [module for module in modules if hasattr(module, "__path__")]


def test_documented_objects_are_exported_by_a_package() -> None:
    """So that moving a module breaks no user's imports. Data sets are modules: `glyphs.load`."""
    hidden = []
    for path in documented():
        home, name = path.rsplit(".", 1)
        if importlib.import_module(home) in vars(datasets).values() or home.endswith(".class_splits"):
            continue
        if not any(getattr(package, name, None) is found(path) for package in packages(path)):
            hidden.append(path)
    assert hidden == []


def test_documented_objects_are_defined_where_the_pages_say() -> None:
    """In that module, or anywhere in that package: not in a module that only imports them."""
    for path in documented():
        home, one = path.rsplit(".", 1)[0], found(path)
        at = home if hasattr(one, "__path__") else getattr(one, "__module__", home)
        assert at == home or hasattr(importlib.import_module(home), "__path__") or "innerloop" not in at, path


def test_documented_modules_are_not_hidden_by_functions() -> None:
    """`import innerloop.algorithms.imaml as m` gives the function: what else is there is imported from the package."""
    for path in documented():
        home, name = path.rsplit(".", 1)
        found(path)
        reached = reduce(getattr, home.split(".")[1:], innerloop)
        assert isinstance(reached, ModuleType) or reached.__name__ == name, path


def test_documented_packages_equal_exported_packages() -> None:
    assert {path.split(".")[1] for path in documented()} == set(innerloop.PACKAGES)


def imported() -> set[tuple[str, str]]:
    """Every name that a page's code imports from a module of the package."""
    nodes = [
        node for page in PAGES for block in blocks(page, "python") for node in ast.walk(ast.parse(block))
    ]
    return {
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("innerloop.")
        for alias in node.names
    }


def test_api_pages_document_every_imported_object() -> None:
    objects = [found(path) for path in documented()]
    for module, name in sorted(imported()):
        value = found(f"{module}.{name}")
        assert isinstance(value, ModuleType) or any(value is one for one in objects), f"{module}.{name}"


def test_api_pages_document_nothing_private() -> None:
    assert not [path for path in documented() if any(part.startswith("_") for part in path.split("."))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_no_wider_than_120_characters(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        assert len(line) <= 120 or line.startswith(("|", "![")), line


def test_architecture_page_names_every_source_entry() -> None:
    told = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    source = ROOT / "src" / "innerloop"
    for path in source.iterdir():
        if path.name.startswith("_") or path.name in ("py.typed", "shipped"):
            continue
        assert path.name in told, path.name


def test_readme_has_results_markers_and_page_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.count("<!-- results:begin -->") == readme.count("<!-- results:end -->") == 1
    assert readme.index("<!-- results:begin -->") < readme.index("<!-- results:end -->")
    assert (ROOT / "docs" / "reference" / "results.md").exists()


def test_versions_agree() -> None:
    version = importlib.metadata.version("innerloop")
    heads = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[:2] == ["Unreleased", version]
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()

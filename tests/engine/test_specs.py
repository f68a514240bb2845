"""The two tables hold all that is known of a name: no code compares one, and every row works."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import innerloop
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config, DataConfig, InnerConfig
from innerloop.config.specs import ALGORITHMS, DATASETS, SETTINGS
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.persistent_adam import persistent_adam

SOURCE = Path(innerloop.__file__).parent
NAMES = {*ALGORITHMS, *DATASETS}
OTHERS = ("protocol", "split")
"""Settings whose values bear the same names: whose sinusoids, which division of the classes."""


def compared(tree: ast.AST) -> Iterator[ast.expr]:
    """Comparisons with a name of a table, and matches of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            constants = [c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)]
            if NAMES & {c for c in constants if isinstance(c, str)}:
                yield node
        if isinstance(node, ast.MatchValue) and ast.literal_eval(node.value) in NAMES:
            yield node.value


def allowed(node: ast.expr) -> bool:
    """Whether it is another setting that is compared."""
    left = ast.unparse(node.left) if isinstance(node, ast.Compare) else ""
    return left.split(".")[-1] in OTHERS


def places() -> list[str]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in compared(ast.parse(path.read_text())):
            if not allowed(node):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_source_never_compares_spec_names():
    assert places() == []


@pytest.mark.parametrize(
    "code",
    [
        'name == "anil"',
        'x.algorithm in ("maml", "boil")',
        'd.dataset != "folder"',
        'a == b == "ant_velocity"',
    ],
)
def test_comparison_finder_detects_spec_names(code: str):
    assert [node for node in compared(ast.parse(code)) if not allowed(node)]


def test_algorithm_specs_match_constructors():
    loss = lambda params, batch: params
    for name, spec in ALGORITHMS.items():
        assert spec.constructor is getattr(innerloop, name)
        made = spec.make(loss, InnerLoop(persistent_adam(0.1)), outer_loss_fn=lambda params, batch: params)
        assert isinstance(made, Algorithm)
        assert spec.settings == tuple(name for name in SETTINGS if hasattr(made, name))
        assert spec.learns_rates == hasattr(made, "rates")
        assert (made.outer_loss_fn is None) == (not spec.reads_query)


def test_settings_are_passed_to_algorithms():
    """A learned step size begins at `inner.learning_rate`; the rule then has a step size of 1."""
    settings = InnerConfig(learning_rate=0.3, multi_step_updates=7, proximal=5.0)
    for spec in ALGORITHMS.values():
        made = spec.make(lambda params, batch: params, InnerLoop(persistent_adam(0.1)), settings=settings)
        assert all(getattr(made, name) == getattr(settings, name) for name in spec.settings)
        assert not spec.learns_rates or made.rates == 0.3


def test_presets_cover_all_algorithms_and_datasets():
    used = {name for c in all_presets().values() for name in (c.algorithm, c.data.dataset)}
    assert used | {"folder"} >= NAMES


def test_image_and_file_datasets_have_loaders():
    for spec in DATASETS.values():
        assert bool(spec.module) == (spec.kind == "images" or spec.needs_file)
        if spec.module:
            assert callable(import_module(f"innerloop.tasks.datasets.{spec.module}").load)


def test_config_resolves_specs():
    config = Config(algorithm="anil", data=DataConfig(dataset="navigation"))
    assert (config.spec.adapts, config.reinforcement) == ("head", True)

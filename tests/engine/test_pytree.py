"""Parameters by their paths: parts of a tree, and parts in another precision."""

import jax
import jax.numpy as jnp
import pytest

from innerloop.engine.pytree import Except, cast, combine, in_words, partition
from innerloop.errors import InnerloopError

TREE = {
    "blocks": [
        {"query": {"lora_in": 1.0, "weight": 2.0}, "norm": 3.0},
        {"query": {"lora_in": 4.0, "weight": 5.0}},
    ],
    "head": {"lora_in": 6.0, "weight": 7.0},
    "lora_in": 8.0,
}


@pytest.mark.parametrize(
    ("selection", "selected"),
    [
        ("**/lora_*", [1, 4, 6, 8]),
        ("blocks/**/lora_*", [1, 4]),
        ("blocks/*/query", [1, 2, 4, 5]),
        ("*/lora_in", [6]),
        ("blocks/1/*/weight", [5]),
        (("**/query/weight", "head"), [2, 5, 6, 7]),
        ("**", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("h*d/", [6, 7]),
        (Except("**/weight"), [1, 3, 4, 6, 8]),
    ],
)
def test_patterns_select_by_path(selection, selected):
    taken, rest = partition(TREE, selection)
    assert sorted(jax.tree.leaves(taken)) == selected
    assert sorted(jax.tree.leaves(rest)) == sorted(set(range(1, 9)) - set(selected))
    assert combine(taken, rest) == TREE


@pytest.mark.parametrize("pattern", ["**/lora", "head/*/x", "*/*/*/*/*", "lora_in/*"])
def test_pattern_without_match_raises(pattern):
    with pytest.raises(InnerloopError, match="matches no parameter"):
        partition(TREE, ("head", pattern))


def test_pattern_matches_name_containing_star():
    taken, _ = partition({"a*": 1.0, "b": 2.0}, "a*")
    assert jax.tree.leaves(taken) == [1.0]


def test_cast_converts_selected_leaves():
    arrays = jax.tree.map(jnp.float32, TREE)
    found = cast(arrays, jnp.bfloat16, Except(("**/lora_*", "head")))
    names = {str(x): x.dtype.name for x in jax.tree.leaves(found)}
    assert [x for x, kind in names.items() if kind == "float32"] == ["1.0", "4.0", "6.0", "7.0", "8.0"]
    assert {x.dtype.name for x in jax.tree.leaves(cast(arrays, jnp.float16))} == {"float16"}


@pytest.mark.parametrize(
    ("pattern", "selected"), [("mlp[1]*", [1]), ("**/mlp[1]", [1]), ("*mlp1", [2]), ("**/w?s", [3])]
)
def test_star_is_the_only_wildcard(pattern: str, selected: list[int]):
    taken, _ = partition({"mlp[1]": 1, "mlp1": 2, "w?s": 3, "was": 4}, pattern)
    assert jax.tree.leaves(taken) == selected


def test_cast_ignores_non_float_leaves():
    others = {"n": jnp.arange(257), "on": jnp.ones(2, bool), "key": jax.random.key(0), "f": jnp.tanh}
    found = cast(others | {"w": jnp.ones(2)}, jnp.bfloat16)
    assert found["w"].dtype == jnp.bfloat16
    assert all(found[name] is x for name, x in others.items())


@pytest.mark.parametrize("dtype", ["foo", jnp.int32])
def test_cast_rejects_non_float_dtypes(dtype):
    with pytest.raises(InnerloopError, match="cast: needs a float dtype"):
        cast(TREE, dtype)


def test_cast_to_unavailable_dtype_raises():
    with jax.enable_x64(False), pytest.raises(InnerloopError, match="float64 is not available"):
        cast(TREE, jnp.float64)


def test_combine_rejects_parts_of_different_trees():
    with pytest.raises(InnerloopError, match="combine: these are parts of different trees"):
        combine({"a": 1.0, "b": None}, {"c": 2.0})


@pytest.mark.parametrize(
    ("selection", "words"),
    [(None, "all"), ((), "none"), ({"c", "a", "b"}, "a, b, c"), (Except(["b", "a"]), "all but a, b")],
)
def test_selection_description_is_deterministic(selection, words: str):
    assert in_words(selection) == words

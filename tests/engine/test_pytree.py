"""Arrays by their paths: a model is refused that has others, or others of its own."""

import numpy as np
import pytest

from innerloop.engine.pytree import check_same
from innerloop.errors import InnerloopError

WANTED = {"a": np.zeros(2), "b": np.zeros((3, 1))}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"a": np.zeros(2)}, r"`b` should be .*3.*got"),
        (WANTED | {"c": np.zeros(4)}, r"`c` should be .*got .*4"),
        (WANTED | {"a": np.zeros(5)}, r"`a` should be .*2.*got .*5"),
    ],
)
def test_what_is_missing_too_much_or_of_another_shape_is_named(found: dict, told: str):
    with pytest.raises(InnerloopError, match=f"^mine: is of another model: {told}"):
        check_same(WANTED, found, "mine")


def test_the_same_names_and_shapes_are_taken():
    check_same(WANTED, {name: x + 1 for name, x in WANTED.items()}, "mine")

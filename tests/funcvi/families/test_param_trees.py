"""Names, order and shapes of every catalogue entry's params, pinned: checkpoints depend on them."""

from pathlib import Path

import jax
import pytest

import funcvi as fv
from tests.funcvi.catalogue import CATALOGUE

#: One line for each entry: its params in order, each with its shape.
PINNED = dict(
    line.split(" | ", 1)
    for line in Path(__file__).with_name("param_trees.txt").read_text().splitlines()
)


def described(name: str) -> str:
    """The params of an entry in insertion order, which a pytree would sort away."""
    return _text(fv.unconstrain(CATALOGUE[name]())[0])


def _text(params: object) -> str:
    if isinstance(params, dict):
        return "{" + ", ".join(f"{key}: {_text(value)}" for key, value in params.items()) + "}"
    if isinstance(params, (tuple, list)):
        return type(params).__name__ + "[" + ", ".join(map(_text, params)) + "]"
    assert isinstance(params, jax.Array)
    return "x".join(map(str, params.shape)) or "scalar"


@pytest.mark.few(4)
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_params_have_the_pinned_names_order_and_shapes(name: str) -> None:
    assert described(name) == PINNED[name]

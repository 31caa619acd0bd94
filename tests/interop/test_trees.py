"""State dicts and nested trees: names, ties, and what is ambiguous."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interop
from interop.errors import ConversionError

KEYS = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), max_size=3)
TREES = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


class Moments(NamedTuple):
    mean: Any
    variance: Any


def tied():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].weight = module[0].weight
    return module


def test_a_state_dict_goes_there_and_back():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).bfloat16()
    state = module.state_dict()
    with jax.enable_x64(True):
        arrays = interop.from_state_dict(state)
    assert list(arrays) == list(state)
    back = interop.to_state_dict(arrays)
    module.load_state_dict(back)
    interop.certify(back, state)


def test_ties_stay_ties():
    arrays = interop.from_state_dict(tied().state_dict())
    assert arrays["0.weight"] is arrays["1.weight"]
    assert arrays["0.bias"] is not arrays["1.bias"]
    back = interop.to_state_dict(arrays)
    assert back["0.weight"] is back["1.weight"]


def test_wide_dtypes_are_named_or_narrowed():
    state = torch.nn.BatchNorm1d(2).state_dict()
    with pytest.raises(ConversionError, match=r"'num_batches_tracked' is int64.*downcast=True"):
        interop.from_state_dict(state)
    assert interop.from_state_dict(state, downcast=True)["num_batches_tracked"].dtype == jnp.int32


def test_what_is_no_state_dict():
    with pytest.raises(TypeError, match=r"got Linear; pass module.state_dict\(\)"):
        interop.from_state_dict(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"'_extra_state': expected a torch.Tensor, got dict"):
        interop.from_state_dict({"_extra_state": {}})
    with pytest.raises(TypeError, match=r"'a.b': expected a JAX or numpy array, got float"):
        interop.to_state_dict({"a": {"b": 1.0}})


class Lazy(Mapping[str, torch.Tensor]):
    """Each tensor is made when it is looked up."""

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.full((5,), float(name))

    def __iter__(self) -> Any:
        return iter(map(str, range(20)))

    def __len__(self) -> int:
        return 20


def test_tensors_that_do_not_outlive_their_conversion_are_not_taken_for_tied():
    arrays = interop.from_state_dict(Lazy())
    assert [array[0] for array in arrays.values()] == list(range(20))


def test_names_keep_the_order_of_the_tree():
    tree = {"z": [1, (2, 3)], "a": {"m": Moments(4, None)}, "empty": {}}
    flat = interop.flatten_names(tree)
    assert list(flat.items()) == [
        ("z.0", 1), ("z.1.0", 2), ("z.1.1", 3), ("a.m.mean", 4), ("a.m.variance", None),
    ]  # fmt: skip
    assert list(interop.flatten_names(tree, separator="/"))[1] == "z/1/0"
    assert interop.unflatten_names(flat) == {
        "z": {"0": 1, "1": {"0": 2, "1": 3}}, "a": {"m": {"mean": 4, "variance": None}},
    }  # fmt: skip


def test_registered_pytrees_and_mappings():
    flat = interop.flatten_names({"layer": jax.tree_util.Partial(len, Moments(1, 2))})
    assert set(flat.values()) == {1, 2}
    jax.tree_util.register_pytree_with_keys(
        Moments2, lambda m: ((("x", m.x),), None), lambda _, children: Moments2(*children)
    )
    assert interop.flatten_names([Moments2(7)]) == {"0.x": 7}


class Moments2:
    def __init__(self, x):
        self.x = x


def test_a_flat_dict_passes_as_it_is():
    flat = {"a.b": 1, "a": 2}
    assert interop.flatten_names(flat) == flat
    assert interop.flatten_names({}) == {}


@settings(deadline=None, max_examples=60)
@given(TREES)
def test_flatten_and_unflatten_are_inverse(tree):
    assert interop.unflatten_names(interop.flatten_names(tree)) == tree


def test_ambiguous_names():
    with pytest.raises(ValueError, match=r"two leaves are both named 'x.0'"):
        interop.flatten_names({"x": {0: 1, "0": 2}})
    for flat in ({"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}):
        with pytest.raises(ValueError, match=r"'a' is a leaf and also the beginning of 'a.b'"):
            interop.unflatten_names(flat)
    with pytest.raises(ValueError, match="have the same keys"):
        interop.unflatten_names({"a\\b": 1, "a\\\\b": 2})
    for wrong in ("", "\\"):
        with pytest.raises(ValueError, match="separator"):
            interop.flatten_names({}, separator=wrong)


ODD = st.text(st.sampled_from(".\\a_"), max_size=4)


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(ODD, st.dictionaries(ODD, st.integers(), min_size=1), min_size=1),
    st.sampled_from([".", "..", "._", "a"]),
)
def test_keys_of_a_nested_tree_may_hold_anything(tree, separator):
    flat = interop.flatten_names(tree, separator=separator)
    assert interop.unflatten_names(flat, separator=separator) == tree


def test_what_like_gives_back():
    tree = {"z.0": [1, (2, {})], "a": {"m": Moments(4, None)}, "empty": {}, "n": {"a.b": 3}}
    flat = interop.flatten_names(tree)
    assert list(flat)[:2] == ["z\\.0.0", "z\\.0.1.0"]
    other = {"z.0": [0, (0, {})], "a": {"m": Moments(0, 0)}, "empty": {}, "n": {"a.b": 0}}
    assert interop.unflatten_names(flat, like=other) == tree
    plain = {"a.b": 1, "a": 2}
    assert interop.unflatten_names(plain, like={"a": 0, "a.b": 0}) == plain
    with pytest.raises(ValueError, match=r"not those of like .missing: 'c'; unknown: 'a.b'"):
        interop.unflatten_names(plain, like={"a": 0, "c": 0})


def test_a_dict_as_a_leaf_is_no_node():
    with pytest.raises(ValueError, match="beginning"):
        interop.unflatten_names({"a": {}, "a.b": 1})


def test_what_is_no_tree():
    with pytest.raises(TypeError, match="expected a tree of named leaves, got int alone"):
        interop.flatten_names(3)
    with pytest.raises(TypeError, match=r"strings or integers, got 1\.5"):
        interop.flatten_names({"a": {1.5: 2}})
    with pytest.raises(TypeError, match="expected a dict of names"):
        interop.unflatten_names([1])
    with pytest.raises(TypeError, match="names that are strings, got 3"):
        interop.unflatten_names({3: 1})


def test_numpy_trees_become_tensors():
    tree = {"layer": {"w": np.ones((2, 3), np.float16)}}
    assert interop.to_state_dict(tree)["layer.w"].dtype == torch.float16

"""Random trees through every format, and a set that Hugging Face wrote."""

import tempfile
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import funcvi as fv
import interop
from interop.dtypes import ROWS

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: name not in ("__metadata__", "format")
)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw):
    row = draw(st.sampled_from([r for r in ROWS if r.code is not None]))
    shape = draw(SHAPES)
    raw = draw(st.binary(min_size=64 * 8, max_size=64 * 8))
    count = int(np.prod(shape))
    own = np.frombuffer(raw, np.uint8)[: count * row.array.itemsize]
    return (own > 127 if row.name == "bool" else own.view(row.array)).reshape(shape)


PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
    | st.binary(min_size=1, max_size=3) | st.complex_numbers(allow_nan=False)
)  # fmt: skip
# Of which paths are alike: "a.b" beside "b" in "a", 1 beside "1".
KEYS = st.sampled_from(["a", "b", "a.b", "a.a", "", "1", "\ud800", 1, 0, -(2**80)])
TREES = st.recursive(
    PLAIN | arrays(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


ODD = st.text(st.sampled_from(".\\a"), max_size=3)
LEAVES = st.integers(0, 9).map(lambda number: np.full(2, number, np.int32))


def equal(one, other):
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (
            other.dtype, other.shape, np.asarray(other).tobytes(),
        )  # fmt: skip
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


@settings(deadline=None, max_examples=40)
@given(
    tree=st.dictionaries(NAMES, arrays(), min_size=1, max_size=5),
    name=st.sampled_from(["m.safetensors", "m.pt"]),
    most=st.none() | st.integers(1, 300),
)
def test_flat_trees_of_any_names(tree, name, most):
    with tempfile.TemporaryDirectory() as folder, jax.enable_x64(True):
        path = interop.save(Path(folder) / name, tree, max_shard_bytes=most)
        loaded = interop.load(path)
        assert tree.keys() == loaded.keys()
        interop.certify(tree, loaded)
        assert interop.open_checkpoint(path).shapes == {n: a.shape for n, a in tree.items()}


@settings(deadline=None, max_examples=40)
@given(TREES)
def test_nested_trees(tree):
    with tempfile.TemporaryDirectory() as folder, jax.enable_x64(True):
        path = interop.save(Path(folder) / "m.pt", tree)
        assert equal(tree, interop.load(path))
        torch.load(path, weights_only=True)  # reads it too


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(ODD, st.dictionaries(ODD, LEAVES, min_size=1), min_size=1))
def test_names_of_nested_trees_give_the_tree_back(tree):
    with tempfile.TemporaryDirectory() as folder, jax.enable_x64(True):
        path = interop.save(Path(folder) / "m.safetensors", tree)
        assert equal(tree, interop.unflatten_names(interop.load(path)))


def test_what_a_bayesian_network_learned(tmp_path):
    net = interop.to_jax(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Tanh()))
    params = fv.bayesian(net, net.params, dist.Normal(0.0, 1.0)).params
    for most in (None, 8):
        path = interop.save(tmp_path / "fit.safetensors", params, max_shard_bytes=most)
        loaded = interop.load(path)
        assert "random.0\\.weight.loc" in loaded
        back = interop.unflatten_names(loaded, like=params)
        assert jax.tree.structure(back) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sharded_set_that_transformers_wrote_and_one_that_it_reads(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=99, n_positions=32)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="10KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    params = interop.load(tmp_path / "theirs")
    other = interop.load_into(transformers.GPT2LMHeadModel(config), params)
    interop.certify(model, other)
    config.save_pretrained(tmp_path / "ours")
    interop.save(tmp_path / "ours" / "model.safetensors", params, max_shard_bytes=10_000)
    interop.certify(model, transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours"))

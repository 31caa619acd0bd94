"""Certificates: the same on both sides for the same bits, different for any other."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interop
from interop.dtypes import ROWS


def module():
    made = torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)
    )
    made[1].weight = made[0].weight
    return made


def test_it_says_what_a_module_holds():
    own = module()
    found = interop.certificate(own)
    assert [e.name for e in found] == sorted(own.state_dict())
    entry = found["0.weight"]
    raw = own[0].weight.detach().numpy().tobytes()
    assert (entry.dtype, entry.shape, entry.kind) == ("float32", (2, 2), "parameter")
    assert entry.sha256 == hashlib.sha256(raw).hexdigest()
    assert entry.ties == ("1.weight",)
    assert found["0.bias"].ties == ()
    assert found["2.num_batches_tracked"].kind == "buffer"
    assert len(found) == 9
    with pytest.raises(KeyError):
        found["0.weights"]


def test_it_is_frozen_and_prints_a_table():
    found = interop.certificate(module())
    with pytest.raises(AttributeError):
        found.entries = ()
    lines = str(found).splitlines()
    assert lines[0].split() == ["name", "dtype", "shape", "sha256", "kind", "ties"]
    assert len(lines) == 10
    assert found["0.weight"].sha256[:16] in lines[2]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_both_sides_agree_for_every_dtype(row):
    raw = np.arange(32 * row.array.itemsize, dtype=np.uint8)
    own = (raw % 2 == 0) if row.name == "bool" else raw.view(row.array)
    tensor = interop.to_tensor(own).reshape(4, 8)
    with jax.enable_x64(True):
        interop.certify({"a": tensor.T}, {"a": interop.to_array(tensor).T})
    interop.certify({"a": own.reshape(4, 8)}, {"a": tensor})


def test_module_state_dict_and_nested_tree_agree():
    own = module()
    with jax.enable_x64(True):
        arrays = interop.from_state_dict(own.state_dict())
        certified = interop.certify(own, interop.unflatten_names(arrays))
    assert certified == interop.certificate(own) == interop.certify(own, own.state_dict())
    assert interop.certify(certified, arrays) is certified


def test_every_difference_is_listed():
    left = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2), "d": jnp.zeros(2)}
    right = {"a": jnp.ones(3), "b": jnp.ones(2, jnp.bfloat16), "d": -jnp.zeros(2), "e": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"differ \(5\)") as raised:
        interop.certify(left, right)
    for part in ("'c' is on the left alone", "'e' is on the right alone",
                 "'a' has shape (2,) on the left, (3,) on the right",
                 "'b' has dtype float32 on the left, bfloat16", "'d' has sha256"):  # fmt: skip
        assert part in str(raised.value)


def test_kinds_and_ties_count_where_both_know_them():
    own, other = module(), module()
    interop.load_into(other, {n: t.detach().numpy() for n, t in own.named_parameters()})
    interop.certify(own, other)
    other[1].weight = torch.nn.Parameter(other[1].weight.detach().clone())
    with pytest.raises(ValueError, match=r"'1.weight' has ties \('0.weight',\) on the left, \(\)"):
        interop.certify(own, other)
    bias = other[0].bias.detach()
    del other[0].bias
    other[0].register_buffer("bias", bias)
    with pytest.raises(ValueError, match=r"'0.bias' has kind parameter on the left, buffer"):
        interop.certify(own, other)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 31), st.integers(0, 7))
def test_one_flipped_bit_is_found(at, bit):
    raw = np.arange(32, dtype=np.uint8)
    flipped = raw.copy()
    flipped[at] ^= 1 << bit
    with pytest.raises(ValueError, match=r"differ \(1\): 'x' has sha256"):
        interop.certify({"x": raw.view(np.float32)}, {"x": flipped.view(np.float32)})


def test_what_has_no_bytes():
    with pytest.raises(TypeError, match=r"'a': expected a JAX or numpy array, got int"):
        interop.certificate({"a": 3})
    with pytest.raises(TypeError, match=r"'a' is on the meta device"):
        interop.certificate({"a": torch.zeros(1, device="meta")})
    assert len(interop.certificate({"e": jnp.zeros((0, 2), jnp.bfloat16)})["e"].sha256) == 64

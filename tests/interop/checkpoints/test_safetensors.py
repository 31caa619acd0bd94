"""The safetensors format: exact, lazy, and each corruption an error that says what is wrong."""

import json
import struct

import jax
import jax.numpy as jnp
import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model

import interop
from tests.interop.checkpoints.trees import every_dtype, small


def write(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_every_dtype_is_exact(tmp_path):
    with jax.enable_x64(True):
        tree = every_dtype(without=["complex128"])
        path = interop.save(tmp_path / "all.safetensors", tree)
        interop.certify(tree, interop.load(path))
        view = interop.open_checkpoint(path)
        interop.certify(tree, dict(view))
    interop.certify(tree, load_file(path))
    assert dict(view.shapes) == {n: a.shape for n, a in tree.items()}
    assert dict(view.dtypes) == {n: a.dtype for n, a in tree.items()}


def test_ties_are_written_once_and_loaded_under_both_names(tmp_path):
    path = interop.save(tmp_path / "m.safetensors", small())
    assert set(load_file(path)) == {"layer.weight", "layer.bias"}
    loaded = interop.load(path)
    assert loaded["tied"] is loaded["layer.weight"]
    interop.certify(small(), loaded)
    assert set(interop.load(path, names=["tied"])) == {"tied"}


def test_ties_in_the_way_of_the_library(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].weight = module[0].weight
    save_model(module, tmp_path / "theirs.safetensors")
    interop.certify(module.state_dict(), interop.load(tmp_path / "theirs.safetensors"))
    ours = interop.save(tmp_path / "ours.safetensors", module.state_dict())
    module[0].weight.data.zero_()
    load_model(module, ours)
    interop.certify(module, interop.load(ours))


def test_nested_trees_get_dotted_names(tmp_path):
    path = interop.save(tmp_path / "m.safetensors", {"a": [{"w": jnp.ones(2)}, {"w": jnp.ones(1)}]})
    assert sorted(interop.load(path)) == ["a.0.w", "a.1.w"]


def test_wide_dtypes_need_x64_or_downcast(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"steps": torch.tensor([3]), "x": torch.tensor([0.1], dtype=torch.float64)}, path)
    with pytest.raises(interop.CheckpointError, match=r"m.safetensors: 'steps' is int64.*downcast"):
        interop.load(path, names=["steps"])
    assert interop.load(path, downcast=True)["steps"].dtype == jnp.int32
    assert interop.open_checkpoint(path, downcast=True)["x"].dtype == jnp.float32
    with jax.enable_x64(True):
        assert interop.load(path)["x"].dtype == jnp.float64


def test_dtypes_of_the_format_that_jax_has_not(tmp_path):
    path = write(tmp_path / "m.safetensors", {"q": entry("F4", (4,), (0, 2))}, b"ab")
    assert dict(interop.open_checkpoint(path).dtypes) == {"q": "F4"}
    with pytest.raises(interop.CheckpointError, match=r"'q' is F4, which JAX has not"):
        interop.load(path)


def test_empty_tensors_of_a_shape_that_none_has(tmp_path):
    huge = {"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}
    path = write(tmp_path / "m.safetensors", huge)
    for read in (lambda: interop.load(path), lambda: interop.open_checkpoint(path)["a"]):
        with pytest.raises(interop.CheckpointError, match=r"'a' cannot be read .*overflow"):
            read()


BROKEN = {
    "empty": (b"", "expected 8 bytes of header length, got 0"),
    "short": (b"\x02\0\0", "expected 8 bytes of header length, got 3"),
    "length": (struct.pack("<Q", 2**62) + b"{}", "claims 4611686018427387904 bytes, .* has 2"),
    "no json": (struct.pack("<Q", 2) + b"{,", "the header is not JSON"),
    "no text": (struct.pack("<Q", 2) + b"\xff\xfe", "the header is not JSON"),
    "list": (struct.pack("<Q", 2) + b"[]", "expected a JSON object, got list"),
    "deep": (struct.pack("<Q", 200_000) + b"[" * 200_000, "the header is not JSON"),
    "long number": (struct.pack("<Q", 5009) + b'{"a":' + b"9" * 5003 + b"}", "not JSON"),
    "nan": (struct.pack("<Q", 9) + b'{"a":NaN}', "NaN is no JSON number"),
}
HEADERS = {
    "twice": (b'{"a":1,"a":2}', "key 'a' occurs twice"),
    "notes": ({"__metadata__": {"a": 1}}, "'__metadata__' has to map strings to strings"),
    "fields": ({"a": {"dtype": "F32"}}, "'a': expected dtype, shape and data_offsets"),
    "dtype": ({"a": entry("F31")}, "'a' has the dtype 'F31'"),
    "dtype type": ({"a": entry(["F32"])}, "'a' has the dtype"),
    "negative": ({"a": entry(shape=(-2,))}, r"'a' has the shape \[-2\]"),
    "fraction": ({"a": entry(shape=(2.0,))}, "'a' has the shape"),
    "flag": ({"a": entry(shape=(True, 2))}, "'a' has the shape"),
    "huge": ({"a": entry(shape=(2**63,))}, "'a' has the shape"),
    "axes": ({"a": entry(shape=(1,) * 65)}, "'a' has the shape"),
    "size lies": ({"a": entry(shape=(2**61, 2**61))}, "'a', F32 .* takes .* bits"),
    "backwards": ({"a": entry(offsets=(8, 0))}, "'a' has the data_offsets"),
    "three": ({"a": entry(offsets=(0, 4, 8))}, "'a' has the data_offsets"),
    "overlap": (
        {"a": entry(), "b": entry(offsets=(4, 12))}, "'b' .bytes 4 to 12. overlaps 'a'",
    ),
    "gap": ({"a": entry(offsets=(4, 12))}, "'a' .* leaves a gap after the header"),
    "beyond": ({"a": entry(shape=(4,), offsets=(0, 16))}, "take 16 bytes, the file holds 8"),
    "left over": ({"a": entry(shape=(1,), offsets=(0, 4))}, "take 4 bytes, the file holds 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name, tmp_path):
    raw, what = BROKEN[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(interop.CheckpointError, match=what) as raised:
        interop.open_checkpoint(path)
    assert str(path) in str(raised.value)
    assert "again" in str(raised.value)


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(name, tmp_path):
    header, what = HEADERS[name]
    path = write(tmp_path / "m.safetensors", header, bytes(8))
    with pytest.raises(interop.CheckpointError, match=what):
        interop.load(path)


def test_every_truncation_is_an_error(tmp_path):
    whole = interop.save(tmp_path / "m.safetensors", small()).read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(interop.CheckpointError):
            interop.open_checkpoint(path)


def test_what_the_format_cannot_hold(tmp_path):
    path = tmp_path / "m.safetensors"
    with jax.enable_x64(True):
        wide = jnp.zeros(1, jnp.complex128)
    for tree, what in (
        ({"z": wide}, "'z' is complex128, which the safetensors format has not"),
        ({"epoch": 3}, "'epoch': expected a JAX or numpy array, got int"),
        ({"m": {0: jnp.ones(1), "0": jnp.ones(1)}}, r"two leaves are both named 'm\.0'"),
        ({"\ud800": jnp.ones(1)}, "no valid Unicode"),
        ({"__metadata__": jnp.ones(1)}, "'__metadata__'"),
        (jnp.ones(1), "expected a tree of named leaves"),
    ):
        with pytest.raises(interop.CheckpointError, match=what):
            interop.save(path, tree)
    assert not list(tmp_path.iterdir())

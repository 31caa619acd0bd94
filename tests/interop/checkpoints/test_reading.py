"""Choosing names, lazy views, folders, and files that are not there."""

from collections.abc import Mapping

import jax.numpy as jnp
import pytest
import torch
from safetensors.torch import save_file

import interop
from tests.interop.checkpoints.trees import small

each = pytest.mark.parametrize("suffix", [".safetensors", ".pt"])


@each
def test_names_and_patterns(tmp_path, suffix):
    tree = {"a.w": jnp.ones(1), "a.b": jnp.ones(2), "c": jnp.ones(3), "x[0]": jnp.ones(4)}
    path = interop.save(tmp_path / f"m{suffix}", tree)
    for names, found in (
        ("a.*", {"a.w", "a.b"}), (["c", "a.w"], {"a.w", "c"}), (("*",), set(tree)),
        ("x[0]", {"x[0]"}), ("?", {"c"}), ([], set()), (iter(["c"]), {"c"}),
    ):  # fmt: skip
        assert set(interop.load(path, names=names)) == found
    with pytest.raises(interop.CheckpointError, match=r"nothing is named 'd', 'e\.\*'; it holds 4"):
        interop.load(path, names=["c", "d", "e.*"])
    with pytest.raises(TypeError, match="names: expected strings, got 3"):
        interop.load(path, names=[3])


@each
def test_a_view_is_a_read_only_mapping(tmp_path, suffix):
    path = interop.save(tmp_path / f"m{suffix}", small())
    view = interop.open_checkpoint(path)
    assert isinstance(view, Mapping)
    assert len(view) == 3
    assert "tied" in view
    assert "other" not in view
    assert 3 not in view
    assert view.get("other") is None
    assert f"m{suffix}', 3 arrays" in repr(view)
    with pytest.raises(KeyError):
        view["other"]
    for write in (view, view.shapes, view.dtypes):
        with pytest.raises(TypeError):
            write["tied"] = jnp.ones(1)
    assert view.dtypes["layer.bias"] == jnp.bfloat16
    interop.certify(small(), view)


@each
def test_a_view_still_reads_what_it_opened(tmp_path, suffix):
    path = interop.save(tmp_path / f"m{suffix}", {"a": jnp.zeros(3)})
    view = interop.open_checkpoint(path)
    before = view["a"]
    interop.save(path, {"a": jnp.ones(3)})
    assert view["a"].tolist() == before.tolist() == [0.0] * 3
    assert interop.load(path)["a"].tolist() == [1.0] * 3


def test_arrays_outlive_their_file(tmp_path):
    path = interop.save(tmp_path / "m.safetensors", small())
    loaded = interop.load(path)
    path.write_bytes(bytes(path.stat().st_size))
    interop.certify(small(), loaded)


def test_folders(tmp_path):
    with pytest.raises(interop.CheckpointError, match=r"expected one of .* in this folder"):
        interop.load(tmp_path)
    for name in ("one.pt", "two.pt"):
        interop.save(tmp_path / name, {"b": jnp.ones(1), "a": jnp.ones(1)}, max_shard_bytes=4)
        if name == "one.pt":
            assert set(interop.load(tmp_path)) == {"a", "b"}
    with pytest.raises(interop.CheckpointError, match="one index, in this folder, got 2"):
        interop.load(tmp_path)
    interop.save(tmp_path / "pytorch_model.bin", {"a": jnp.zeros(1)})
    assert interop.load(tmp_path)["a"].tolist() == [0.0]
    interop.save(tmp_path / "model.safetensors", {"a": jnp.ones(1)})
    assert interop.load(str(tmp_path))["a"].tolist() == [1.0]


def test_files_that_are_not_there_or_of_no_known_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m.pt: no such checkpoint"):
        interop.load(tmp_path / "m.pt")
    (tmp_path / "m.npz").write_bytes(b"")
    with pytest.raises(interop.CheckpointError, match=r"expected a file named .*, got '.npz'"):
        interop.load(tmp_path / "m.npz")
    with pytest.raises(interop.CheckpointError, match=r"expected a name ending in .* got '.npz'"):
        interop.save(tmp_path / "m.npz", {})
    with pytest.raises(FileNotFoundError, match="no such folder"):
        interop.save(tmp_path / "no" / "m.pt", {})


def test_of_several_sets_in_a_folder_the_one_that_transformers_reads(tmp_path):
    names = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
    for value, name in enumerate(names[::-1]):
        if name.endswith(".json"):
            torch.save({"x": torch.tensor(float(value))}, tmp_path / "old.bin")
            (tmp_path / name).write_text('{"weight_map": {"x": "old.bin"}}')
        elif name.endswith(".bin"):
            torch.save({"x": torch.tensor(float(value))}, tmp_path / name)
        else:
            save_file({"x": torch.tensor(float(value))}, tmp_path / name)
        assert interop.load(tmp_path)["x"] == value

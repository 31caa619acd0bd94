"""Sharded sets: written, read in part, and refused when not whole or when they point elsewhere."""

import json
import shutil

import jax.numpy as jnp
import pytest
import torch
from safetensors.torch import save_file

import interop
from tests.interop.checkpoints.trees import small

formats = pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    interop.save(folder / "model.safetensors", small(), max_shard_bytes=10)
    return folder


def shard(folder, number):
    """The name of a shard, which each save makes anew."""
    (found,) = folder.glob(f"*-{number:05}-of-*")
    return found.name


def edit(folder, change):
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))
    return path


@formats
def test_shards_go_there_and_back(tmp_path, name):
    tree = small() | {"big": jnp.zeros(100), "z": jnp.int8(3)}
    index = interop.save(tmp_path / name, tree, max_shard_bytes=64)
    assert index.name == f"{name}.index.json"
    assert len(list(tmp_path.iterdir())) == 4
    for path in (index, tmp_path, tmp_path / name):
        loaded = interop.load(path)
        interop.certify(tree, loaded)
        assert loaded["tied"] is loaded["layer.weight"]
    assert list(interop.load(index, names=["z", "layer.*"])) == ["layer.weight", "layer.bias", "z"]
    content = json.loads(index.read_text())
    assert content["metadata"]["total_size"] == 24 + 6 + 400 + 1
    assert content["weight_map"]["tied"] == content["weight_map"]["layer.weight"]


def test_what_fits_is_one_file(tmp_path):
    path = interop.save(tmp_path / "m.safetensors", small(), max_shard_bytes=1000)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert path == tmp_path / "m.safetensors"


@formats
def test_saving_again_leaves_nothing_stale(tmp_path, name):
    path = tmp_path / name
    for bytes_ in (10, 10, None, 10, 1000, 24):
        tree = {"a": jnp.full(6, float(bytes_ or 0)), "b": jnp.ones(2)}
        saved = interop.save(path, tree, max_shard_bytes=bytes_)
        interop.certify(tree, interop.load(saved))
        interop.certify(tree, interop.load(tmp_path if saved != path else path))
        count = 3 if bytes_ in (10, 24) else 1
        assert len(list(tmp_path.iterdir())) == count


def test_the_names_of_older_versions_are_known(folder):
    places = {}
    for number in (1, 2):
        older = f"model-{number:05}-of-00002{'-01234567' if number == 2 else ''}.safetensors"
        places[shard(folder, number)] = older
        (folder / shard(folder, number)).rename(folder / older)
    index = edit(folder, lambda names: names.update({n: places[f] for n, f in names.items()}))
    interop.certify(small(), interop.load(index))
    interop.save(folder / "model.safetensors", small(), max_shard_bytes=10)
    assert len(list(folder.iterdir())) == 3
    interop.certify(small(), interop.load(index))


def test_a_set_of_others_is_not_removed(folder):
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    content["metadata"] = {"total_size": 1}
    path.write_text(json.dumps(content))
    before = sorted(folder.iterdir())
    with pytest.raises(interop.CheckpointError, match=r"that interop.save did not write"):
        interop.save(folder / "model.safetensors", small())
    interop.save(folder / "model.safetensors", small(), max_shard_bytes=10)
    assert set(before) < set(folder.iterdir())


@pytest.mark.parametrize("kind", ["up", "absolute", "link"])
def test_shards_outside_of_the_folder_are_refused(folder, kind):
    outside = interop.save(folder.parent / "secret.safetensors", {"x": jnp.ones(1)})
    (folder / "link.safetensors").symlink_to(outside)
    target = {"up": "../secret.safetensors", "absolute": str(outside), "link": "link.safetensors"}
    index = edit(folder, lambda places: places.update(x=target[kind]))
    with pytest.raises(interop.CheckpointError, match=r"lies outside the index's folder"):
        interop.load(index)


def test_the_linked_files_of_a_cache_are_read(folder):
    blobs = folder.parent / "blobs"
    shutil.move(folder, blobs)
    folder.mkdir()
    for number, file in enumerate(sorted(blobs.iterdir())):
        hashed = file.rename(blobs / f"{number:040x}")
        (folder / file.name).symlink_to(hashed)
    interop.certify(small(), interop.load(folder))


def test_everything_missing_is_told_at_once(folder):
    first, second = shard(folder, 1), shard(folder, 2)
    (folder / second).unlink()

    def change(places):
        places["ghost"] = places["layer.weight"]
        places["lost"] = "nowhere.safetensors"
        del places["tied"]
        places["itself"] = "model.safetensors.index.json"

    with pytest.raises(interop.CheckpointError, match="the set is not whole") as raised:
        interop.load(edit(folder, change))
    for part in (
        f"'{second}' is missing", "'nowhere.safetensors' is missing",
        f"'{first}' does not hold 'ghost'",
        "'model.safetensors.index.json' is missing",
    ):  # fmt: skip
        assert part in str(raised.value)


@formats
def test_a_name_that_the_index_leaves_out_is_no_part_of_the_set(tmp_path, name):
    save, suffix = (torch.save, ".bin") if "bin" in name else (save_file, ".safetensors")
    one, two = torch.ones(2), torch.zeros(2)
    save({"a": one, "b": one + 1, "c": two.clone()}, tmp_path / f"first{suffix}")
    save({"b": two, "d": two.clone()}, tmp_path / f"second{suffix}")
    places = {"a": f"first{suffix}", "b": f"second{suffix}"}
    (tmp_path / f"{name}.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = interop.load(tmp_path)
    interop.certify({"a": one, "b": two}, loaded)
    assert set(interop.open_checkpoint(tmp_path)) == {"a", "b"}


def test_a_name_that_the_index_places_elsewhere(tmp_path):
    tree = {n: jnp.full(2, float(i)) for i, n in enumerate("abcd")}
    interop.save(tmp_path / "model.safetensors", tree, max_shard_bytes=16)
    second = shard(tmp_path, 2)
    with pytest.raises(interop.CheckpointError, match=f"not whole: '{second}' does not hold 'b'"):
        interop.load(edit(tmp_path, lambda places: places.update(b=second)))


def test_a_tie_that_the_index_leaves_out_is_restored(folder):
    interop.certify(small(), interop.load(edit(folder, lambda places: places.pop("tied"))))


def test_a_broken_shard_is_named(folder):
    (folder / shard(folder, 1)).write_bytes(b"")
    with pytest.raises(interop.CheckpointError, match=f"{shard(folder, 1)}: expected"):
        interop.load(folder)


@pytest.mark.parametrize(
    ("raw", "what"),
    [("{", "not JSON"), ("[]", "got list"), ("{}", "expected 'weight_map'"),
     ('{"weight_map": {"a": 1}}', "expected 'weight_map'"),
     ('{"weight_map": {"a": "\\u0000"}}', "no file name"),
     ('{"weight_map": {"a": "x", "a": "y"}}', "occurs twice"),
     ('{"weight_map": {"a": "."}}', "missing")],
)  # fmt: skip
def test_broken_indexes(tmp_path, raw, what):
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(raw)
    with pytest.raises(interop.CheckpointError, match=what):
        interop.load(path)


def test_shards_hold_arrays_alone(tmp_path):
    with pytest.raises(interop.CheckpointError, match=r"'epoch'.* in one piece holds numbers"):
        interop.save(tmp_path / "m.pt", {"w": jnp.ones(9), "epoch": 3}, max_shard_bytes=8)
    for wrong in (0, 1.5, True):
        with pytest.raises(interop.CheckpointError, match="max_shard_bytes: expected bytes"):
            interop.save(tmp_path / "m.pt", {}, max_shard_bytes=wrong)


def test_shards_of_torch_files_of_others(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.ones(3)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    places = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert {n: a.shape for n, a in interop.load(tmp_path).items()} == {"a": (2,), "b": (3,)}

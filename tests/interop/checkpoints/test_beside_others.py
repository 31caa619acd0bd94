"""Writers and readers of one path at once, killed writers, full disks, access rights."""

import contextlib
import errno
import inspect
import itertools
import json
import os
import resource
import shutil
import stat
import sys
from collections.abc import Mapping

import jax.numpy as jnp
import pytest
import torch

import interop
from interop.checkpoints import index, reading, writing
from interop.checkpoints.atomic import Staging
from tests.interop.checkpoints.trees import small

names = pytest.mark.parametrize("name", ["m.safetensors", "m.bin"])


def tree(value):
    return {"a": jnp.full(8, float(value)), "b": jnp.full(8, float(value))}


def save(path, value, most=32):
    return interop.save(path, tree(value), max_shard_bytes=most)


def values(loaded):
    return {float(x) for array in loaded.values() for x in array}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def before_each_shard(monkeypatch, act):
    """Call ``act`` between the reading of an index and that of each shard."""
    opened = index.open_file

    def open_file(*args):
        act()
        return opened(*args)

    monkeypatch.setattr(index, "open_file", open_file)


@names
def test_a_reader_never_mixes_two_saves(tmp_path, monkeypatch, name):
    save(tmp_path / name, 0)
    later = iter([1, 2])

    def act():
        for value in itertools.islice(later, 1):
            save(tmp_path / name, value)

    before_each_shard(monkeypatch, act)
    assert values(interop.load(tmp_path / name)) == {2.0}
    view = interop.open_checkpoint(tmp_path / name)
    save(tmp_path / name, 3)
    assert values(view) == {2.0}
    assert len(files(tmp_path)) == 3


@names
def test_a_set_that_is_replaced_without_end(tmp_path, monkeypatch, name):
    path = save(tmp_path / name, 0)
    before_each_shard(monkeypatch, lambda: save(tmp_path / name, 1))
    with pytest.raises(interop.CheckpointError, match="the set was replaced by another save"):
        interop.load(path)


@names
def test_a_set_that_a_single_file_replaces_meanwhile(tmp_path, monkeypatch, name):
    save(tmp_path / name, 0)
    before_each_shard(monkeypatch, lambda: save(tmp_path / name, 1, None))
    assert values(interop.load(tmp_path / name)) == {1.0}
    assert files(tmp_path) == [name]


@names
def test_a_single_file_that_a_set_replaces_meanwhile(tmp_path, monkeypatch, name):
    target = tmp_path / {"m.bin": "pytorch_model.bin"}.get(name, "model.safetensors")
    for place in (target, tmp_path):
        save(target, 0, None)
        later = iter([1])
        opened = reading.open_file

        def open_file(*args, opened=opened, later=later):
            for value in later:
                save(target, value)
            return opened(*args)

        monkeypatch.setattr(reading, "open_file", open_file)
        assert values(interop.load(place)) == {1.0}
        monkeypatch.undo()


def test_others_that_write_a_set_anew_under_the_same_names(tmp_path, monkeypatch):
    def write(value):
        for file in "ab":
            torch.save({file: torch.full((2,), float(value))}, tmp_path / f"{file}.bin")
        places = {"a": "a.bin", "b": "b.bin"}
        (tmp_path / "new").write_text(json.dumps({"weight_map": places}))
        os.replace(tmp_path / "new", tmp_path / "m.bin.index.json")

    write(0)
    later = iter([1])
    before_each_shard(monkeypatch, lambda: [write(value) for value in itertools.islice(later, 1)])
    assert values(interop.load(tmp_path / "m.bin")) == {1.0}


@names
@pytest.mark.parametrize("most", [(32, 32), (None, 32), (32, None), (None, None)])
def test_of_two_writers_the_last_wins_and_nothing_else_stays(tmp_path, monkeypatch, name, most):
    save(tmp_path / name, 0)
    kind = "write_safetensors" if name == "m.safetensors" else "torch"
    nested = iter([2])

    def act():
        for value in nested:
            save(tmp_path / name, value, most[1])
            assert values(interop.load(tmp_path / name)) == {2.0}

    if kind == "torch":
        monkeypatch.setattr(writing, "torch", Beside(act))
    else:
        written = writing.write_safetensors
        monkeypatch.setattr(writing, kind, lambda *a: [act(), written(*a)])
    path = save(tmp_path / name, 1, most[0])
    assert values(interop.load(tmp_path / name)) == values(interop.load(path)) == {1.0}
    assert len(files(tmp_path)) == (3 if most[0] else 1)


class Beside:
    """torch, but another writer comes first."""

    def __init__(self, act):
        self._act = act

    def save(self, *args):
        self._act()
        torch.save(*args)


def killed(target, names):
    """What a writer leaves that dies now."""
    staging = Staging(target)
    staging.__enter__()
    for name in names:
        with staging.other(target.with_name(name)) as file:
            file.write(b"half")
    staging.file.close()  # as its lock goes with a process


@names
def test_what_killed_writers_leave_goes_with_the_next_save(tmp_path, name):
    target = save(tmp_path / name, 0)
    shutil.copy(tmp_path / files(tmp_path)[0], tmp_path / f".{name}.other.tmp")
    killed(target, ["x", "y"])
    killed(tmp_path / name, [])
    # One that died after its shards had their names and before its index had.
    orphan = f"m-{'0' * 16}-00001-of-00001.{name.split('.')[1]}"
    (tmp_path / orphan).write_bytes(b"x")
    # The second one removed what the first had left of its set.
    assert len(files(tmp_path)) == 6
    save(tmp_path / name, 1)
    assert len(files(tmp_path)) == 4
    killed(target, ["z"])
    save(tmp_path / name, 2, None)
    assert files(tmp_path) == [f".{name}.other.tmp", name]


@names
def test_living_writers_keep_their_files(tmp_path, name):
    with Staging(tmp_path / name) as staging:
        with staging.other(tmp_path / "shard") as file:
            file.write(b"shard")
        staging.file.write(b"target")
        save(tmp_path / name, 1, None)
        staging.flush()
        with staging.locked_folder():
            staging.place()
    assert (tmp_path / name).read_bytes() == b"target"
    assert (tmp_path / "shard").read_bytes() == b"shard"
    assert len(files(tmp_path)) == 2


def test_shards_that_another_index_lists_are_kept(tmp_path):
    path = save(tmp_path / "m.safetensors", 0)
    shutil.copy(path, tmp_path / "best.safetensors.index.json")
    save(tmp_path / "m.safetensors", 1)
    assert values(interop.load(tmp_path / "best.safetensors")) == {0.0}
    assert values(interop.load(path)) == {1.0}


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="access rights of POSIX")
@pytest.mark.parametrize("most", [None, 32])
@names
def test_access_rights_are_those_of_open_and_are_kept(tmp_path, name, most):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0, 0o666)):
        folder = tmp_path / str(mask)
        folder.mkdir()
        with umask(mask):
            save(folder / name, 0, most)
        assert modes(folder) == {mode}
    for mode in (0o640, 0o604, 0o400):
        for path in folder.iterdir():
            path.chmod(mode)
        with umask(0o027):
            save(folder / name, 1, most)
            save(folder / name, 2, 32 if most is None else None)
            save(folder / name, 3, most)
        assert modes(folder) == {mode}
        assert values(interop.load(folder / name)) == {3.0}


@contextlib.contextmanager
def longest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@names
@pytest.mark.parametrize("most", [None, 30_000])
def test_a_full_disk_is_an_error_and_the_old_file_is_whole(tmp_path, name, most):
    save(tmp_path / name, 1)
    before = files(tmp_path)
    large = {n: jnp.ones(5000) for n in "abc"}
    with longest_file(10_000), pytest.raises(interop.CheckpointError) as raised:
        interop.save(tmp_path / name, large, max_shard_bytes=most)
    assert "not saved (File too large); what was there before is whole" in str(raised.value)
    assert files(tmp_path) == before
    assert values(interop.load(tmp_path / name)) == {1.0}


class Full:
    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("format", ["pt", "safetensors"])
def test_a_file_object_that_is_full(format):
    with pytest.raises(interop.CheckpointError, match=r"<Full>: not saved .No space left"):
        interop.save(Full(), small(), format=format)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_trees_that_are_too_deep(tmp_path, suffix):
    deep = {"a": jnp.ones(1)}
    for _ in range(3000):
        deep = {"a": deep}
    with pytest.raises(interop.CheckpointError, match=r"cannot save: .* deep"):
        interop.save(tmp_path / f"m.{suffix}", deep)
    assert not files(tmp_path)


def test_as_deep_as_it_is_saved_it_is_loaded(tmp_path):
    deep = jnp.ones(1)
    for level in range(200):
        deep = [{"a": deep}, (deep,)][level % 2]
    path = interop.save(tmp_path / "m.pt", deep)
    loaded = interop.load(path)
    torch.load(path)
    for level in reversed(range(200)):
        loaded = loaded[["a", 0][level % 2]]
    assert loaded == 1.0
    with pytest.raises(interop.CheckpointError, match="200 levels deep"):
        interop.save(path, [deep])


def from_deep_inside(call, depth):
    return from_deep_inside(call, depth - 1) if depth else call()


def test_calls_that_are_too_deep_already(tmp_path):
    deep = jnp.ones(1)
    for _ in range(190):
        deep = [deep]
    path = interop.save(tmp_path / "m.pt", deep)
    room = sys.getrecursionlimit() - len(inspect.stack()) - 150
    for call in (lambda: interop.load(path), lambda: interop.save(path, deep)):
        with pytest.raises(interop.CheckpointError, match=r"deep|recursion"):
            from_deep_inside(call, room)
    assert interop.load(path)


class Made(Mapping):
    """Each value is made when it is looked up."""

    def __init__(self, depth):
        self.depth = depth

    def __getitem__(self, name):
        return Made(name) if self.depth is None else jnp.full(1, float(self.depth))

    def __iter__(self):
        return iter(range(50) if self.depth is None else "a")

    def __len__(self):
        return len(list(iter(self)))


def test_containers_that_are_made_when_looked_up(tmp_path):
    path = interop.save(tmp_path / "m.pt", Made(None))
    assert [value["a"] for value in interop.load(path).values()] == list(range(50))
    path = interop.save(tmp_path / "m.safetensors", {"x": Made(None)})
    assert [value[0] for value in interop.load(path).values()] == list(range(50))


def test_containers_in_many_places(tmp_path):
    shared = [jnp.ones(1)]
    for _ in range(12):
        shared = [shared, shared]
    path = interop.save(tmp_path / "m.pt", shared)
    assert path.stat().st_size < 5000
    loaded = interop.load(path)
    assert loaded[0] is loaded[1]
    assert len(interop.open_checkpoint(path)) == 2**12
    for _ in range(30):
        shared = [shared, shared]
    with pytest.raises(interop.CheckpointError, match=r"stands for \d+ entries"):
        interop.save(path, shared)

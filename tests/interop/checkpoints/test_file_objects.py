"""Open files, buffers and what reads like them, in place of paths; the notes of .safetensors."""

import io
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file

import interop
from tests.interop.checkpoints.trees import every_dtype, small

formats = pytest.mark.parametrize("format", ["pt", "safetensors"])


class Remote(io.RawIOBase):
    """Reads and writes a little at a time, as files of a network may."""

    def __init__(self, data=b""):
        self._own = io.BytesIO(data)

    def readable(self):
        return True

    writable = seekable = readable

    def seek(self, *where):
        return self._own.seek(*where)

    def readinto(self, buffer):
        return self._own.readinto(memoryview(buffer)[:7])

    def write(self, data):
        return self._own.write(bytes(data[:7]))


@formats
@pytest.mark.parametrize("make", [io.BytesIO, Remote])
def test_there_and_back(format, make):
    with jax.enable_x64(True):
        tree = every_dtype(without=["complex128"])
        file = make()
        assert interop.save(file, tree, format=format) is None
        file.seek(0)
        interop.certify(tree, interop.load(file))
        file.seek(0)
        view = interop.open_checkpoint(file)
        assert repr(view).startswith(f"Checkpoint('<{make.__name__}>', ")
        interop.certify(tree, dict(view))


def test_what_others_wrote_into_a_buffer_and_what_they_read_of_ours():
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    interop.certify(tensors, interop.load(io.BytesIO(save_bytes(tensors))))
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
        file.seek(0)
        interop.certify(tensors, interop.load(file))
        interop.certify(tensors, interop.load(Remote(file.getvalue())))
    file = io.BytesIO()
    interop.save(file, tensors, format="safetensors")
    interop.certify(tensors, load_bytes(file.getvalue()))
    file = io.BytesIO()
    interop.save(file, tensors, format="pt")
    file.seek(0)
    interop.certify(tensors, torch.load(file))


@formats
def test_open_files_and_those_of_fsspec(tmp_path, format):
    fsspec = pytest.importorskip("fsspec")
    path = tmp_path / f"m.{format}"
    with open(path, "wb") as file:
        interop.save(file, small())
    interop.certify(small(), interop.load(path))
    with open(path, "rb") as file:
        interop.certify(small(), interop.load(file))
    remote = fsspec.filesystem("memory")
    with remote.open("/m", "wb") as file:
        interop.save(file, small(), format=format)
    with remote.open("/m", "rb") as file:
        interop.certify(small(), interop.load(file))
    with pytest.raises(TypeError, match=r"got OpenFile; open it: with file as f"):
        interop.load(fsspec.open("memory://m"))


@formats
def test_a_checkpoint_begins_where_the_file_stands(format):
    file = io.BytesIO(b"before")
    file.seek(6)
    interop.save(file, small(), format=format)
    file.seek(6)
    interop.certify(small(), interop.load(file))
    file.seek(0, os.SEEK_END)
    with pytest.raises(interop.CheckpointError, match=r"no bytes after position .*seek\(0\) first"):
        interop.load(file)


def test_files_that_do_not_serve(tmp_path):
    path = interop.save(tmp_path / "m.pt", small())
    closed = io.BytesIO()
    closed.close()
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb"):
        for file, what in (
            (path.open(encoding="utf-8", errors="replace"), "got text: open it with 'rb'"),
            (closed, r"cannot be read \(ValueError: I/O operation on closed file"),
            (pipe, "what is not seekable fits into an io.BytesIO"),
        ):  # fmt: skip
            with pytest.raises(interop.CheckpointError, match=what):
                interop.load(file)
            file.close()
    with pytest.raises(TypeError, match="expected a path or an open binary file, got int"):
        interop.load(3)
    with pytest.raises(interop.CheckpointError, match=r"pass format='safetensors' or format='pt'"):
        interop.save(io.BytesIO(), small())
    for wrong, what in (({"format": "onnx"}, "got 'onnx'"), ({"format": "pt"}, "the suffix")):
        with pytest.raises(interop.CheckpointError, match=what):
            interop.save(path, small(), **wrong)
    with pytest.raises(interop.CheckpointError, match="max_shard_bytes needs a path"):
        interop.save(io.BytesIO(), small(), format="pt", max_shard_bytes=8)
    with path.open("rb") as read_only:
        for file in (io.StringIO(), read_only):
            with pytest.raises(interop.CheckpointError, match="open to write: open it with 'wb'"):
                interop.save(file, small(), format="pt")
    view = interop.open_checkpoint(file := path.open("rb"))
    file.close()
    with pytest.raises(interop.CheckpointError, match="closed file"):
        view["layer.bias"]


@pytest.mark.parametrize("most", [None, 10])
def test_metadata_is_written_and_read(tmp_path, most):
    notes = {"step": "3", "": "", "é": "\n", "__metadata__": "x"}
    path = interop.save(tmp_path / "m.safetensors", small(), metadata=notes, max_shard_bytes=most)
    view = interop.open_checkpoint(path)
    assert view.metadata == {"format": "pt", **notes}
    interop.certify(small(), view)
    interop.save(path.with_name("n.safetensors"), small(), metadata=view.metadata)
    for file in tmp_path.glob("*.safetensors"):
        with safetensors.safe_open(file, "pt") as theirs:
            assert notes.items() <= theirs.metadata().items()


def test_metadata_of_others_and_none(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "m.safetensors", {"by": "them"})
    assert interop.open_checkpoint(tmp_path / "m.safetensors").metadata == {"by": "them"}
    path = interop.save(tmp_path / "m.pt", small())
    assert interop.open_checkpoint(path).metadata == {}


def test_metadata_that_could_be_read_as_something_else(tmp_path):
    path = tmp_path / "m.safetensors"
    for notes, what in (
        ({"best": "layer.bias"}, "would be read as a tie"), ({"a": 1}, "expected strings"),
        ({"tied": "x"}, "'tied' is taken .* or the metadata of that name"),
        ({"a": "\ud800"}, "no valid Unicode"),
    ):  # fmt: skip
        with pytest.raises(interop.CheckpointError, match=what):
            interop.save(path, small(), metadata=notes)
    with pytest.raises(interop.CheckpointError, match=r"belongs to .safetensors files"):
        interop.save(tmp_path / "m.pt", small(), metadata={"a": "b"})
    assert not list(tmp_path.iterdir())


@formats
def test_downcast_is_asked_for_once(tmp_path, format):
    path = tmp_path / f"m.{format}"
    tree = {"steps": np.arange(3), "x": np.float64(0.1) * np.ones(2), "y": jnp.ones(1)}
    interop.save(path, tree, downcast=True)
    loaded = interop.load(path)
    assert {n: str(a.dtype) for n, a in loaded.items()} == {
        "steps": "int32", "x": "float32", "y": "float32",
    }  # fmt: skip
    with pytest.raises(interop.CheckpointError, match="'n' has int64 values that do not fit int32"):
        interop.save(path, {"n": np.array([2**40])}, downcast=True)
    assert interop.load(path)["steps"].tolist() == [0, 1, 2]

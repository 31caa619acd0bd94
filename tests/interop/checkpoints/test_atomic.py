"""A crash while saving leaves what was there."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

import interop
from tests.interop.checkpoints.trees import small

CRASH = """
import os, sys
import jax.numpy as jnp
import interop, interop.checkpoints.atomic as atomic
left = int(sys.argv[2])
replace = os.replace
def crash(*paths):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    replace(*paths)
os.replace = crash
interop.save(sys.argv[1], {"a": jnp.ones(8), "b": jnp.ones(8)}, max_shard_bytes=int(sys.argv[3]))
"""


def test_a_process_that_dies_between_shards_and_index_leaves_the_old_set(tmp_path):
    old = {"a": jnp.zeros(8), "b": jnp.zeros(8)}
    interop.save(tmp_path / "m.safetensors", old, max_shard_bytes=32)
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path / "m.safetensors"), "2", "32"], check=False
    )
    assert done.returncode == 9
    interop.certify(old, interop.load(tmp_path / "m.safetensors"))
    interop.save(tmp_path / "m.safetensors", small(), max_shard_bytes=32)
    interop.certify(small(), interop.load(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_an_interrupt_before_the_last_step_leaves_the_old_file(tmp_path, monkeypatch, name):
    path = interop.save(tmp_path / name, small())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        interop.save(path, {"a": jnp.ones(3)})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    interop.certify(small(), interop.load(path))


def test_an_error_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = interop.save(tmp_path / "m.safetensors", small())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    for name in ("m.safetensors", "m.pt"):
        with pytest.raises(interop.CheckpointError, match=r"not saved .No space left.* is whole"):
            interop.save(tmp_path / name, {"a": jnp.ones(3)})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    interop.certify(small(), interop.load(path))


def test_a_link_stays_a_link(tmp_path):
    real = tmp_path / "real.txt"
    real.write_text("old")
    link = tmp_path / "link.pt"
    link.symlink_to(real)
    interop.save(link, small())
    assert link.is_symlink()
    interop.certify(small(), interop.load(link))
    assert sorted(tmp_path.iterdir()) == [link, real]

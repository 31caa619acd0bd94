"""One tensor out of a gigabyte: the rest is never in memory."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import interop

CODE = """
import sys
import interop
def peak():
    # Not getrusage: its maximum includes the parent's, from before exec.
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) * 1024
interop.load(sys.argv[2])
before = peak()
assert interop.load(sys.argv[1], names=["small"])["small"].tolist() == [0.0, 1.0, 2.0, 3.0]
one = peak()
view = interop.open_checkpoint(sys.argv[1])
assert len(view.shapes) == 17
assert view["layer.3"].shape == (2**24,)
print(one - before, peak() - before)
"""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as folder:  # pytest keeps its own for days
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["big.pt", "big.safetensors", "sharded.safetensors"])
def test_a_part_of_a_large_file_takes_little_memory(folder, name):
    large = {f"layer.{i}": torch.zeros(2**24) for i in range(16)}  # 64 MiB each
    large["small"] = torch.arange(4.0)
    path = folder / name
    if name == "big.pt":
        torch.save(large, path)
    elif name == "big.safetensors":
        save_file(large, path)
    else:
        path = interop.save(path, large, max_shard_bytes=2**28)
    del large
    warm = interop.save(folder / f"warm{'.pt' if name == 'big.pt' else '.safetensors'}",
                        {"a": torch.ones(3)})  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), str(warm)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    print(name, done.stdout)
    one, layer = map(int, done.stdout.split())
    assert one < 16 * 2**20
    assert layer < 256 * 2**20

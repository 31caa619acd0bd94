"""Zip archives that are no files of torch.save, or lack its checksums, say what they are."""

import zipfile

import pytest
import torch

import interop
from tests.interop.checkpoints.test_pickled import repack
from tests.interop.checkpoints.trees import small


def test_archives_of_another_kind(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "hello")
    with pytest.raises(interop.CheckpointError, match=r"expected one data.pkl, .*got 0"):
        interop.load(path)
    interop.save(path, small())
    repack(path, lambda entries: {**entries, "archive/constants.pkl": b""})
    with pytest.raises(interop.CheckpointError, match="TorchScript archive, which holds code"):
        interop.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10_000))
    with pytest.raises(interop.CheckpointError, match=r"'archive/data.pkl' is compressed"):
        interop.load(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_torch_writes_besides(tmp_path):
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(interop.CheckpointError, match=r"a TorchScript archive.*torch.jit.load"):
        interop.load(path)
    program = torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))
    with open(path, "wb") as file:
        torch.export.save(program, file)
    with pytest.raises(interop.CheckpointError, match=r"torch.export: save the state_dict"):
        interop.load(path)
    with torch.package.PackageExporter(path) as package:
        package.save_pickle("p", "m.pkl", {"a": 1})
    with pytest.raises(interop.CheckpointError, match=r"an archive of torch.package"):
        interop.load(path)


def test_files_without_checksums(tmp_path):
    path = tmp_path / "m.pt"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3), "b": torch.zeros(2)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    for read in (interop.load, interop.open_checkpoint):
        with pytest.raises(interop.CheckpointError, match=r"no checksums .* by torch\.load"):
            read(path)
    torch.save(torch.load(path), path)
    assert interop.load(path)["a"].tolist() == [1.0] * 3

"""Files of torch.save: new, old and older; nothing in them runs, nothing broken passes."""

import pickle
import zipfile

import jax
import jax.numpy as jnp
import pytest
import torch

import interop
from interop.dtypes import ROWS
from tests.interop.checkpoints.trees import every_dtype, small

both = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


_UNSIGNED = ("uint16", "uint32", "uint64")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def repack(path, edit):
    """The archive again with entries changed, under right checksums."""
    with zipfile.ZipFile(path) as file:
        entries = {n: file.read(n) for n in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in edit(entries).items():
            file.writestr(name, data)


@both
def test_every_dtype_is_exact(tmp_path, zipped):
    path = tmp_path / "all.pt"
    with jax.enable_x64(True):
        # The old format of torch has no storages of these.
        new = [r.name for r in ROWS if r.name.startswith("float8") or r.name in _UNSIGNED]
        tree = every_dtype(without=[] if zipped else new)
        torch.save(interop.to_state_dict(tree), path, _use_new_zipfile_serialization=zipped)
        interop.certify(tree, interop.load(path))
        view = interop.open_checkpoint(path)
        interop.certify(tree, dict(view))
    assert dict(view.dtypes) == {n: a.dtype for n, a in tree.items()}


@both
def test_nesting_and_plain_leaves_are_kept(tmp_path, zipped):
    content = {
        "state_dict": {"a.b": torch.ones(2), "c": torch.nn.Parameter(torch.zeros(()))},
        "epoch": 3, "rate": 0.1, "name": "run", "none": None, "flag": True, 7: [b"x", (1j,)],
        "size": torch.Size([1, 2]),
    }  # fmt: skip
    path = tmp_path / "run.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = interop.load(path)
    interop.certify(content["state_dict"], loaded["state_dict"])
    del loaded["state_dict"], content["state_dict"]
    assert loaded == content
    assert type(loaded["size"]) is tuple
    view = interop.open_checkpoint(path)
    assert list(view) == ["state_dict.a.b", "state_dict.c"]
    assert "epoch" not in view
    assert interop.load(path, names="*.c") == {"state_dict.c": 0.0}


@both
def test_a_tensor_alone_views_and_ties(tmp_path, zipped):
    path = tmp_path / "t.pt"
    torch.save(torch.arange(3.0), path, _use_new_zipfile_serialization=zipped)
    assert interop.load(path).tolist() == [0.0, 1.0, 2.0]
    base = torch.arange(12.0).reshape(3, 4)
    content = {"a": base, "t": base.t(), "s": base[1:, ::2], "b": base, "e": base[:1].expand(3, 4)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = interop.load(path)
    interop.certify(content, loaded)
    assert loaded["a"] is loaded["b"]


def test_what_is_saved_loads_in_plain_torch(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with jax.enable_x64(True):
        state = interop.from_state_dict(module.state_dict())
    path = interop.save(tmp_path / "m.pt", {"model": state, "epoch": 3, "rates": [0.1, (1, None)]})
    loaded = torch.load(path, weights_only=True)
    other = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    other.load_state_dict(loaded.pop("model"))
    interop.certify(module, other)
    assert loaded == {"epoch": 3, "rates": [0.1, (1, None)]}


def test_a_tie_is_written_once_and_a_view_alone(tmp_path):
    path = interop.save(tmp_path / "m.pt", small())
    loaded = torch.load(path)
    assert loaded["tied"].data_ptr() == loaded["layer.weight"].data_ptr()
    interop.save(path, {"view": torch.zeros(1_000_000)[:2]})
    assert path.stat().st_size < 5000


def moments(of):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = of([parameter])

    def loss():
        optimizer.zero_grad()
        value = (parameter * torch.arange(2.0)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return optimizer


def same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        interop.certify({"x": theirs}, {"x": ours})
        return True
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


@both
def test_what_training_saves_is_what_torch_reads(tmp_path, zipped):
    optimizer = moments(torch.optim.SGD)
    noted = torch.ones(2)
    noted.note = "an attribute"
    content = {
        "adam": moments(torch.optim.AdamW).state_dict(),
        "lbfgs": moments(torch.optim.LBFGS).state_dict(),
        "steps": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2, 2]).state_dict(),
        "plateau": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).state_dict(),
        "buffer": torch.nn.Buffer(torch.zeros(1)), "noted": noted, "random": torch.get_rng_state(),
    }  # fmt: skip
    path = tmp_path / "run.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with jax.enable_x64(True):
        assert same(interop.load(path), torch.load(path))


class Subclass(torch.Tensor):
    pass


def test_tensors_of_a_class_and_storages_alone(tmp_path):
    path = tmp_path / "m.pt"
    for content, what in (
        (torch.ones(1).as_subclass(Subclass), "Subclass' at 'x'"),
        (torch.ones(1).untyped_storage(), "a storage without its tensor at 'x'"),
    ):
        torch.save({"x": content}, path)
        with pytest.raises(interop.CheckpointError, match=what):
            interop.load(path)


@both
def test_nothing_runs(tmp_path, zipped):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pt"
    content = {"a": torch.ones(2), "evil": Evil(canary)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    view = interop.open_checkpoint(path)
    for read in (lambda: interop.load(path), lambda: view["evil"]):
        with pytest.raises(
            interop.CheckpointError, match=r"refused to load 'io.open' at 'evil'.*nothing ran"
        ):
            read()
    assert list(view) == list(interop.load(path, names="a")) == ["a"]
    assert list(view.refused) == ["evil"]
    assert not canary.exists()
    torch.load(path, weights_only=False)["evil"].close()
    assert canary.exists()  # it would have run


@both
def test_a_pickled_module_says_to_save_its_state_dict(tmp_path, zipped):
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Linear(1, 1), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(interop.CheckpointError, match=r"linear.Linear'.*state_dict\(\)"):
        interop.load(path)


def test_a_plain_pickle_and_a_blocked_module(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(interop.CheckpointError, match=r"refused to load 'os.system'"):
        interop.load(path)
    path.write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(interop.CheckpointError, match=r"cannot be read as a file of torch\.save"):
        interop.load(path)


def test_a_flipped_byte_of_any_tensor_is_found(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.full((8,), 1.25), "b": torch.full((3,), 2.5)}, path)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"\0\0\x20\x40")
    raw[at + 1] ^= 4
    path.write_bytes(raw)
    with pytest.raises(interop.CheckpointError, match="the checksum of 'b' does not fit"):
        interop.load(path)
    assert interop.load(path, names=["a"])["a"].tolist() == [1.25] * 8
    view = interop.open_checkpoint(path)
    with pytest.raises(interop.CheckpointError, match="truncated or corrupt"):
        view["b"]


def test_every_truncation_is_an_error(tmp_path):
    whole = interop.save(tmp_path / "m.pt", {"a": jnp.ones(2)}).read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(interop.CheckpointError):
            interop.load(path)


def test_storages_that_are_longer_than_their_entries(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(200)}, path)

    def edit(entries):
        name = "m/data.pkl"
        return {**entries, name: entries[name].replace(b"K\xc8", b"K\xc9")}

    repack(path, edit)
    with pytest.raises(interop.CheckpointError, match="'a' claims 804 bytes"):
        interop.load(path)


def test_tensors_saved_on_a_gpu(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(2)}, path)

    def edit(entries):
        here, there = b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"
        return {**entries, "m/data.pkl": entries["m/data.pkl"].replace(here, there)}

    repack(path, edit)
    assert b"cuda:0" in path.read_bytes()
    assert interop.load(path)["a"].tolist() == [1.0, 1.0]


def test_big_endian_files(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.tensor([1.5, 2.0])}, path)

    def edit(entries):
        data = entries["m/data/0"]
        swapped = data[3::-1] + data[:3:-1]
        return {**entries, "m/byteorder": b"big", "m/data/0": swapped}

    repack(path, edit)
    assert interop.load(path)["a"].tolist() == [1.5, 2.0]
    raw = path.read_bytes().replace(b"\x3f\xc0\x00\x00", b"\x3f\xc0\x00\x01")
    path.write_bytes(raw)
    with pytest.raises(interop.CheckpointError, match="checksum of 'a'"):
        interop.load(path)


def test_contents_that_are_no_tree(tmp_path):
    path = tmp_path / "m.pt"
    loop = []
    loop.append(loop)
    deep = []
    for _ in range(5000):
        deep = [deep]
    bomb = torch.ones(1)
    for _ in range(40):
        bomb = [bomb, bomb]
    for content, what in (
        (loop, "contains itself"),
        (deep, "nested too deeply|cannot read"),
        ({"bomb": bomb}, "more than .* entries"),
        ({"big": torch.ones(1).expand(2**40)}, "'big' is an expanded tensor that would take"),
        ({"kind": torch.float32}, "refused to load 'torch.float32' at 'kind'"),
        ({"s": torch.eye(2).to_sparse()}, "'s' has a sparse layout"),
        ({"m": torch.zeros(2, device="meta")}, "'m' is on the meta device"),
    ):
        try:
            torch.save(content, path)
        except RecursionError:
            continue
        with pytest.raises(interop.CheckpointError, match=what):
            interop.load(path)


def test_what_pt_files_cannot_hold(tmp_path):
    path = tmp_path / "m.pt"
    loop = {}
    loop["loop"] = loop
    for tree, what in (
        ({"a": {"b": object()}}, "'a.b' is a object; .*flatten_names"),
        ({"a": {1.5: jnp.ones(1)}}, "key 1.5"),
        ({"k": jax.random.key(0)}, "'k' is a key of random numbers"),
        (loop, "contains itself"),
    ):
        with pytest.raises(interop.CheckpointError, match=what):
            interop.save(path, tree)
    assert not path.exists()

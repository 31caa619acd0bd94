"""Files that hold more than tensors: the tensors are read, the rest is refused or allowed."""

import argparse
import collections
import dataclasses
import enum
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop

both = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@dataclasses.dataclass
class Config:
    width: int
    scale: object = None


class Colour(enum.Enum):
    RED = 1


class Moments(collections.namedtuple("Moments", "mean variance")):
    pass


class Items(dict):
    pass


class Rows(list):
    pass


class Slotted:
    __slots__ = ("value",)


class Outer:
    class Inner:
        pass


REFUSED = {
    "namespace": argparse.Namespace(rate=0.1),
    "data class": Config(3),
    "enumeration": Colour.RED,
    "path": pathlib.PurePosixPath("a"),
    "default dict": collections.defaultdict(list, a=[1]),
    "queue": collections.deque([1, 2]),
    "dict": Items(a=1),
    "list": Rows([1, 2]),
    "inner class": Outer.Inner(),
    "numpy": np.arange(3),
    "number": np.float64(0.5),
    "function": max,
    "dtype": torch.float32,
    "device": torch.device("cpu"),
    "set": {1, 2},
    "frozen": frozenset([1]),
    "bytes": bytearray(b"x"),
    "keys": {Colour.RED: 1},
    "odd keys": {((((((((((1,),),),),),),),),),): 1},
}


def write(path, content, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@both
@pytest.mark.parametrize("kind", REFUSED)
def test_weights_beside_what_is_refused_are_read(tmp_path, kind, zipped):
    weights = {"w": torch.arange(3.0), "tied": torch.ones(2)}
    content = {"args": REFUSED[kind], "state_dict": weights, "epoch": 3}
    path = write(tmp_path / "run.ckpt", content, zipped)
    for names in ("state_dict.*", ["state_dict.w", "state_dict.tied"], "*"):
        loaded = interop.load(path, names=names)
        interop.certify({f"state_dict.{n}": t for n, t in weights.items()}, loaded)
    view = interop.open_checkpoint(path)
    assert list(view) == ["state_dict.w", "state_dict.tied"]
    assert list(view.refused) == ["args"]
    for read in (
        lambda: interop.load(path), lambda: interop.load(path, names="args"),
        lambda: interop.load(path, names=["state_dict.w", "args.width"]), lambda: view["args"],
    ):  # fmt: skip
        with pytest.raises(interop.CheckpointError, match="'args'"):
            read()


@both
def test_a_pattern_that_may_mean_tensors_in_what_is_refused_is_an_error(tmp_path, zipped):
    content = {"model": torch.nn.Linear(1, 1), "w": torch.ones(1)}
    path = write(tmp_path / "run.pt", content, zipped)
    assert list(interop.load(path, names="w")) == ["w"]
    for names in ("*", "model.*", "model.weight", "mod*", "model", "*.weight"):
        with pytest.raises(interop.CheckpointError, match=r"names=.*what is not read.*Linear' at"):
            interop.load(path, names=names)
    write(path, {"model": torch.nn.Linear(1, 1)}, zipped)
    with pytest.raises(interop.CheckpointError, match=r"Linear' at 'model'.*state_dict\(\)"):
        interop.open_checkpoint(path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_other_tensors_and_shapes_of_trees_are_refused_one_by_one(tmp_path):
    loop = []
    loop.append(loop)
    deep = torch.ones(1)
    for _ in range(300):
        deep = [deep]
    content = {
        "w": torch.ones(1), "s": torch.eye(2).to_sparse(), "m": torch.ones(1, device="meta"),
        "loop": loop, "deep": deep, "a.b": torch.ones(1), "a": {"b": torch.ones(1)},
        "q": torch.quantize_per_tensor(torch.ones(1), 0.1, 0, torch.qint8),
    }  # fmt: skip
    path = write(tmp_path / "m.pt", content)
    view = interop.open_checkpoint(path)
    assert list(view) == ["w"]
    assert len(view.refused) == 6
    assert "6 refused" in repr(view)
    assert interop.load(path, names="w") == {"w": 1.0}
    with pytest.raises(interop.CheckpointError, match=r"both be named 'a\.b': load the whole"):
        interop.load(path, names="a.b")


@both
def test_allowed_classes(tmp_path, zipped):
    content = {
        "config": Config(3, torch.ones(2)), "colour": Colour.RED, "moments": Moments(1, 2),
        "items": Items(a=torch.zeros(1)), "rows": Rows([1, torch.zeros(1)]), "set": {1, 2},
    }  # fmt: skip
    path = write(tmp_path / "run.pt", content, zipped)
    allow = (Config, Colour, Moments, Items, Rows, set)
    loaded = interop.load(path, allow=allow)
    assert [type(value) for value in loaded.values()] == list(allow)
    assert loaded["config"].width == 3
    assert isinstance(loaded["config"].scale, jnp.ndarray)
    assert loaded["colour"] is Colour.RED
    assert loaded["moments"] == Moments(1, 2)
    assert loaded["rows"][0] == 1
    assert loaded["set"] == {1, 2}
    view = interop.open_checkpoint(path, allow=allow)
    assert list(view) == ["config.scale", "items.a", "rows.1"]
    with pytest.raises(interop.CheckpointError, match=r"'tests.*Rows' at 'rows'"):
        interop.load(path, allow=allow[:4])


def test_a_class_that_moved_and_slots(tmp_path):
    one = Slotted()
    one.value = 3
    path = write(tmp_path / "m.pt", {"x": one, "inner": Outer.Inner()})
    own = f"{Slotted.__module__}.Slotted"
    loaded = interop.load(path, allow={own: Slotted, f"{__name__}.Outer.Inner": Config})
    assert loaded["x"].value == 3
    assert type(loaded["inner"]) is Config  # made by __new__ alone
    with pytest.raises(interop.CheckpointError, match="'x' does not make a Colour"):
        interop.load(path, allow={own: Colour, f"{__name__}.Outer.Inner": Config})


def test_functions_and_names_are_not_allowed(tmp_path):
    path = write(tmp_path / "m.pt", {"w": torch.ones(1)})
    for allow in ([max], ["os.system"], "os.system", {"os.system": max}, [Config, 3]):
        with pytest.raises(TypeError, match="allow: expected classes, got"):
            interop.load(path, allow=allow)
    assert interop.load(path, allow=Config)["w"] == 1.0


@pytest.mark.parametrize("protocol", range(1, 5))
def test_every_protocol_of_pickle(tmp_path, protocol):
    content = {
        "w": torch.ones(2), "t": (1, (2,), [], {}), "n": -1.5, "i": 2**70, "c": 1j, "u": "é\n", 
        "b": b"\xff", "e": b"", "o": collections.OrderedDict(a=1), "k": Config(4, [None, True]),
    }  # fmt: skip
    torch.save(content, tmp_path / "m.pt", pickle_protocol=protocol)
    loaded = interop.load(tmp_path / "m.pt", allow=(Config,) if protocol > 1 else (), names="w")
    assert loaded["w"].tolist() == [1.0, 1.0]
    if protocol > 1:
        loaded = interop.load(tmp_path / "m.pt", allow=[Config])
        del loaded["w"], content["w"]
        assert loaded == content


def test_what_stands_for_more_than_it_takes_is_searched_in_bounds(tmp_path):
    class Refusing:
        def __init__(self, content):
            self.content = content

        def __reduce__(self):
            return print, (self.content,)

    one = torch.ones(1)
    shared = list(range(30_000))
    content = {"w": one, "many": [Refusing(shared) for _ in range(2000)]}
    path = write(tmp_path / "m.pt", content)
    assert list(interop.load(path, names="*")) == ["w"]
    held = [one, *([i] for i in range(3000))]
    write(path, {"w": one, "many": [Refusing(held) for _ in range(2000)]})
    with pytest.raises(interop.CheckpointError, match="what is not read"):
        interop.load(path, names="*")
    write(path, {"w" * 100_000: [one] * 20_000})
    with pytest.raises(interop.CheckpointError, match="names are too long"):
        interop.load(path)


def test_conjugated_and_negated_tensors(tmp_path):
    x = torch.tensor([1 + 2j, 3 - 4j])
    for tensor in (x.conj(), x.conj().imag, x.imag, x.conj()[1:]):
        path = write(tmp_path / "m.pt", {"x": tensor})
        assert torch.equal(interop.to_tensor(interop.load(path)["x"]), tensor.resolve_conj())

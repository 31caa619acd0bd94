"""Inputs and outputs of any class: containers in and out, and what forward puts into them."""

import dataclasses
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop
from tests.interop.module_cases import Of

X = jnp.arange(3.0)
Pair = namedtuple("Pair", ["a", "b"])


@dataclasses.dataclass
class Batch:
    x: Any
    scale: float = 2.0


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any


class Output(OrderedDict):  # as Hugging Face's were, unknown to every registry
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Layer:
    def __init__(self) -> None:
        self.keys: Any = None
        self.length = torch.tensor(0)

    def put(self, x: torch.Tensor) -> torch.Tensor:
        if self.keys is None:
            self.keys = torch.zeros(4, *x.shape)
        self.keys.index_copy_(0, self.length.reshape(1), x[None])
        self.length.add_(1)
        return self.keys


class Cache:
    def __init__(self) -> None:
        self.layers = [Layer(), Layer()]
        self.first = self.layers[0]
        self.mode = "sum"

    def put(self, x: torch.Tensor) -> Any:
        return sum(layer.put(x * (i + 1)).sum(0) for i, layer in enumerate(self.layers))


def grows(m: Any, x: Any, held: Any) -> Any:
    held["all"] = torch.cat([held["all"], x])
    return held["all"].sum()


INPUTS: dict[str, tuple[Any, Any]] = {
    "dataclass": (lambda m, b: b.x * b.scale, lambda x: Batch(x, 3.0)),
    "frozen dataclass": (lambda m, b: b.x * 2, Frozen),
    "dataclass with slots": (lambda m, b: b.x * 2, Slotted),
    "in a list": (lambda m, bs: bs[0].x + bs[1].x, lambda x: [Batch(x), Frozen(x * 2)]),
    "in a dataclass": (lambda m, b: b.x.x * b.scale, lambda x: Batch(Frozen(x))),
    "named tuple": (lambda m, p: p.a - p.b, lambda x: Pair(x, x * 3)),
    "mapping": (lambda m, o: o.y * 2, lambda x: Output(y=x)),
    "default dict": (lambda m, d: d["y"] * len(d["none"] + [0]), lambda x: defaultdict(list, y=x)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    function, make = INPUTS[name]
    expected = function(None, make(torch.arange(3.0)))
    net = interop.to_jax(Of(function))
    np.testing.assert_allclose(net({}, make(X)), expected)
    slope = jax.jit(jax.grad(lambda x: net({}, make(x)).sum()))(X)
    assert slope.any()
    assert len(net._compiled) == 1


def test_constants_in_an_object_make_their_own_programs() -> None:
    net = interop.to_jax(Of(lambda m, b: b.x * b.scale))
    for scale in (2.0, 3.0, 2.0, -0.0, 0.0):
        expected = np.arange(3.0) * scale
        found = net({}, Batch(X, scale))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))
        np.testing.assert_allclose(found, expected)


OUTPUTS: dict[str, tuple[Any, Any]] = {
    "dataclass": (lambda m, x: Batch(x * 2, 1.5), {"x": 2 * X, "scale": 1.5}),
    "mapping": (lambda m, x: Output(y=x * 2, z=(x, 1)), {"y": 2 * X, "z": (X, 1)}),
    "default dict": (lambda m, x: defaultdict(list, a=x, b=x + 1), {"a": X, "b": X + 1}),
    "named tuple": (lambda m, x: Pair(x, [x, None]), Pair(X, [X, None])),
    "result of max": (lambda m, x: x.max(0), (2.0, 2)),
    "numbers": (lambda m, x: (x, 1, "a", None), (X, 1, "a", None)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name: str) -> None:
    function, expected = OUTPUTS[name]
    found = interop.to_jax(Of(function))({}, X)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


# ---- objects -------------------------------------------------------------------------------------


def cached(m: Any, x: Any, cache: Any) -> Any:
    return cache.put(x), cache


def test_a_cache_goes_in_and_comes_back() -> None:
    net = interop.to_jax(Of(cached))
    theirs = Cache()
    ours = interop.to_pytree(Cache())
    for i in range(4):
        expected, _ = cached(None, torch.arange(3.0) + i, theirs)
        found, ours = net({}, X + i, ours)
        np.testing.assert_allclose(found, expected)
    assert isinstance(ours, interop.Container)
    assert ours.mode == "sum"
    assert ours.first is ours.layers[0] or ours.first.length == ours.layers[0].length == 4
    np.testing.assert_allclose(ours.layers[1].keys, theirs.layers[1].keys)
    assert len(net._compiled) == 2  # with nothing in it, and with keys


def test_a_cache_is_carried_through_a_scan() -> None:
    net = interop.to_jax(Of(cached))
    theirs = Cache()
    expected = [cached(None, torch.arange(3.0) + i, theirs)[0] for i in range(4)]

    @jax.jit
    def all_of(x: Any) -> Any:
        first, cache = net({}, x[0], interop.to_pytree(Cache()))
        _, rest = jax.lax.scan(lambda c, x: net({}, x, c)[::-1], cache, x[1:])
        return jnp.concatenate([first[None], rest])

    found = all_of(X + jnp.arange(4.0)[:, None])
    np.testing.assert_allclose(found, torch.stack(expected))
    assert all_of._cache_size() == 1


def test_one_object_met_twice_stays_one() -> None:
    def forward(m: Any, x: Any, cache: Any) -> Any:
        cache.first.put(x)
        return cache.layers[0].keys.sum() + cache.layers[0].length, cache

    found, cache = interop.to_jax(Of(forward))({}, X, interop.to_pytree(Cache()))
    assert found == 4
    assert interop.to_jax(Of(forward))({}, X, cache)[0] == 8


def test_arrays_of_a_container_are_leaves() -> None:
    container = interop.to_pytree(Cache())
    assert len(jax.tree.leaves(container)) == 2
    doubled = jax.tree.map(lambda x: x + 3, container)
    assert doubled.layers[1].length == 3
    assert jax.tree.structure(container) == jax.tree.structure(interop.to_pytree(Cache()))
    assert "Cache" in repr(container)
    with pytest.raises(AttributeError, match="not changed in place"):
        container.mode = "mean"
    with pytest.raises(AttributeError, match="nothing"):
        container.nothing  # noqa: B018


# ---- what forward puts into containers -----------------------------------------------------------


def test_what_is_put_into_a_container_comes_back_or_is_refused() -> None:
    net = interop.to_jax(Of(grows))
    held = {"all": X[:1]}
    with pytest.raises(interop.ConversionError, match=r"containers among the inputs.*net.stateful"):
        net({}, X, held)
    after = net.stateful({}, X, held)
    assert after.output == 3
    np.testing.assert_array_equal(after.inputs[0][1]["all"], jnp.concatenate([X[:1], X]))
    assert held["all"].shape == (1,)


def test_what_is_taken_out_is_no_loss() -> None:
    net = interop.to_jax(Of(lambda m, xs: xs.pop() * xs[0]))
    assert net({}, [jnp.ones(()), jnp.full((), 3.0)]) == 3
    after = net.stateful({}, [jnp.ones(()), jnp.full((), 3.0)])
    assert after.inputs[0] == ([1.0],)


def test_objects_come_back_from_stateful() -> None:
    net = interop.to_jax(Of(lambda m, x, cache: cache.put(x)))
    cache = interop.to_pytree(Cache())
    with pytest.raises(interop.ConversionError, match=r"net.stateful"):
        net({}, X, cache)
    after = net.stateful({}, X, cache)
    np.testing.assert_array_equal(after.inputs[0][1].layers[1].keys[0], 2 * X)


# ---- refused -------------------------------------------------------------------------------------


def test_what_has_no_meaning_is_refused() -> None:
    net = interop.to_jax(Of(lambda m, x: x))
    loop: list[Any] = []
    loop.append(loop)
    for value, message in (
        (iter([X]), "read once: pass a list"),
        (loop, "holds itself"),
        (torch.nn.ReLU(), "a module is an attribute"),
    ):
        with pytest.raises(interop.ConversionError, match=message):
            net({}, value)
    with pytest.raises(TypeError, match=r"interop.to_pytree"):
        net({}, Batch(torch.ones(3)))


def test_a_program_has_its_constants_in_it() -> None:
    class Signed(torch.nn.Module):
        def forward(self, x: torch.Tensor, negative: bool) -> torch.Tensor:
            return -x if negative else x

    net = interop.to_jax(torch.export.export(Signed(), (torch.ones(3), True)))
    np.testing.assert_array_equal(net({}, X, True), -X)
    with pytest.raises(interop.ConversionError, match="the constant True, got False"):
        net({}, X, False)


def test_arrays_have_no_identity() -> None:
    def forward(m: Any, cache: Any) -> Any:
        cache["k"].add_(1)
        return cache["v"] * 1, cache

    net = interop.to_jax(Of(forward))
    zeros = jnp.zeros(2)
    for call in (net, jax.jit(net)):
        found, cache = call({}, {"k": zeros, "v": zeros})
        np.testing.assert_array_equal(found, [0.0, 0.0])
        np.testing.assert_array_equal(cache["k"], [1.0, 1.0])
    container = interop.to_pytree(Cache())
    same = jax.tree.map(lambda x: zeros[0].astype(x.dtype), container)
    for leaf in jax.tree.leaves(net({}, {"k": zeros, "v": zeros, "more": same})[1]["more"]):
        assert leaf == 0


def test_one_tensor_held_twice_stays_one() -> None:
    shared = torch.zeros(2)

    holder = Layer()
    holder.keys = holder.length = shared
    made = interop.to_pytree(holder)
    assert len(jax.tree.leaves(made)) == 1

    def through(m: Any, x: Any, layer: Any) -> Any:
        layer.keys.add_(x)
        return layer.length * 1, layer

    found, _ = interop.to_jax(Of(through))({}, jnp.ones(2), made)
    np.testing.assert_array_equal(found, [1.0, 1.0])

"""Memory that forward reaches by other ways than its own code is refused too, and put back."""

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop

SEEN: list[torch.Tensor] = []


class Store:
    """Keeps what it is given."""

    shared: list[torch.Tensor] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.memory: list[torch.Tensor] = []
        self.last: Any = None
        self.count = 0

    def push(self, x: torch.Tensor) -> torch.Tensor:
        self.memory.append(x)
        return sum(self.memory)

    def counted(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.count


class Log(list[Any]):
    """A container with attributes."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.count


class Lazy(dict[str, float]):
    """Would load all that it names, if it were looked through."""

    def _load(self, *_: Any) -> Any:
        raise ValueError("cannot load")

    items = values = keys = __iter__ = __copy__ = __deepcopy__ = _load


STORE, LOG, LAZY = Store(), Log(), Lazy(one=2.0)
LIBRARY = types.ModuleType("library")
exec("seen = []\ndef run(x):\n    seen.append(x)\n    return sum(seen)", vars(LIBRARY))


def inner(x: torch.Tensor) -> torch.Tensor:
    SEEN.append(x)
    return sum(SEEN)


def helper(x: torch.Tensor) -> torch.Tensor:
    return inner(x)


def with_attribute(x: torch.Tensor) -> torch.Tensor:
    with_attribute.last = x + getattr(with_attribute, "last", 0)
    return with_attribute.last


def generator(x: torch.Tensor) -> torch.Tensor:
    def twice():
        for _ in range(2):
            yield inner(x)

    return sum(twice())


class Doubling(torch.autograd.Function):
    """Remembers in the class."""

    memory: list[torch.Tensor] = []  # noqa: RUF012

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        Doubling.memory.append(x)
        return x * len(Doubling.memory)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def bound(x: torch.Tensor) -> torch.Tensor:
    STORE.last = x if STORE.last is None else STORE.last + x
    return STORE.last


class Calls(torch.nn.Module):
    """Calls a function that is not its own."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class OfClass(torch.nn.Module):
    seen: list[torch.Tensor] = []  # noqa: RUF012

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return sum(self.seen)


class OfObject(torch.nn.Module):
    def __init__(self, method: str) -> None:
        super().__init__()
        self.store = Store()
        self.method = method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self.store, self.method)(x)


def of_lambda() -> torch.nn.Module:
    memory: list[torch.Tensor] = []
    return Calls(lambda x: (memory.append(x), sum(memory))[1])


def of_hook() -> torch.nn.Module:
    memory: list[torch.Tensor] = []

    def hook(part: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        memory.append(output)
        return sum(memory)

    net = Calls(lambda x: x * 1)
    net.register_forward_hook(hook)
    return net


def of_decorator() -> torch.nn.Module:
    cache: list[torch.Tensor] = []

    def remembering(function: Any) -> Any:
        @functools.wraps(function)
        def wrapped(self: Any, x: torch.Tensor) -> torch.Tensor:
            cache.append(x)
            return function(self, sum(cache))

        return wrapped

    class Decorated(torch.nn.Module):
        @remembering
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1

    return Decorated()


WAYS = {
    "a helper's helper": (lambda: Calls(helper), "the global 'SEEN'"),
    "a partial": (lambda: Calls(functools.partial(helper)), "the global 'SEEN'"),
    "a generator": (lambda: Calls(generator), "the global 'SEEN'"),
    "an object's method": (lambda: Calls(STORE.push), "'function'"),
    "an object's attribute": (lambda: Calls(bound), "an attribute of the global 'STORE'"),
    "an object's class": (
        lambda: Calls(lambda x: (Store.shared.append(x), sum(Store.shared))[1]),
        "'shared' of Store",
    ),
    "a function's attribute": (lambda: Calls(with_attribute), "an attribute of with_attribute"),
    "another module": (lambda: Calls(LIBRARY.run), "the global 'seen'"),
    "by another module's name": (
        lambda: Calls(lambda x: (LIBRARY.seen.append(x), sum(LIBRARY.seen))[1]),
        "the global 'LIBRARY.seen'",
    ),
    "an autograd function": (lambda: Calls(Doubling.apply), "'memory' of Doubling"),
    "a class attribute": (OfClass, "'seen' of OfClass"),
    "an object of a part": (lambda: OfObject("push"), "'store'"),
    "a number of an object of a part": (lambda: OfObject("counted"), "'store'"),
    "a number of an object": (lambda: Calls(STORE.counted), "'function'"),
    "a number of a list": (
        lambda: Calls(lambda x: LOG.counted(x)),
        "an attribute of the global 'LOG'",
    ),
    "a number of a list of a part": (lambda: Calls(Log().counted), "'function'"),
    "a lambda's closure": (of_lambda, "'memory' around <lambda>"),
    "a hook's closure": (of_hook, "'memory' around hook"),
    "a decorator's closure": (of_decorator, "'cache' around"),
}


@pytest.mark.parametrize(("make", "name"), WAYS.values(), ids=WAYS)
def test_memory_by_any_way_is_refused_and_put_back(make: Any, name: str) -> None:
    net = interop.to_jax(make())
    for _ in range(2):
        with pytest.raises(interop.ConversionError, match=f"forward keeps .*{name}"):
            net({}, jnp.ones(3))
    assert not any((SEEN, STORE.memory, Store.shared, LIBRARY.seen, OfClass.seen, Doubling.memory))
    assert STORE.last is None
    assert STORE.count == LOG.count == 0
    assert not hasattr(with_attribute, "last")


def test_a_mapping_that_loads_what_it_names_is_not_made_to() -> None:
    net = interop.to_jax(Calls(lambda x: x * LAZY["one"]))
    np.testing.assert_array_equal(net({}, jnp.ones(3)), 2 * np.ones(3))


class Slots:
    """Attributes that cannot be listed."""

    __slots__ = ("last",)


def accumulator() -> Any:
    total: Any = 0
    while True:
        x = yield total
        total = total + x * 1


def in_slots() -> torch.nn.Module:
    kept = Slots()
    kept.last = None

    def run(x: torch.Tensor) -> torch.Tensor:
        kept.last = x * 2 if kept.last is None else kept.last + x
        return kept.last

    return Calls(run)


def in_another_library() -> torch.nn.Module:
    def run(x: torch.Tensor) -> torch.Tensor:
        np.kept_by_this_test = getattr(np, "kept_by_this_test", 0) + x
        return np.kept_by_this_test

    return Calls(run)


class ToClass(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).new = getattr(self, "new", 0) + x
        return type(self).new


def in_a_generator() -> torch.nn.Module:
    kept = accumulator()
    next(kept)
    return Calls(lambda x: kept.send(x))


@pytest.mark.parametrize("make", [in_slots, in_another_library, ToClass, in_a_generator])
def test_a_tensor_kept_where_nobody_looks_is_refused_by_its_line(make: Any) -> None:
    try:
        with pytest.raises(interop.ConversionError, match=r"keeps a tensor of .*test_reached\.py:"):
            interop.to_jax(make())({}, jnp.ones(3))
    finally:
        vars(np).pop("kept_by_this_test", None)


@functools.lru_cache
def table(size: int) -> torch.Tensor:
    return torch.arange(size).cos()


def test_functions_that_remember_constants_are_allowed_and_forget_what_was_traced() -> None:
    module = Calls(lambda x: x * table(len(x)))
    np.testing.assert_allclose(interop.to_jax(module)({}, jnp.ones(3)), np.cos(np.arange(3)))
    assert torch.equal(module(torch.ones(3)), torch.arange(3).cos())


class Shows(torch.nn.Module):
    """Stores what nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.store.last = x * 2
        self.store.count += 1
        return x + 1


def test_what_an_object_of_a_part_holds_and_nothing_reads_is_allowed() -> None:
    module = Shows()
    np.testing.assert_array_equal(interop.to_jax(module)({}, jnp.ones(3)), 2 * np.ones(3))
    assert module.store.last is None


class Caches(torch.nn.Module):
    """Keeps what it computes of its parameter, as attention biases are kept in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.register_buffer("index", torch.tensor([0, 2, 2]))
        self.cache: dict[int, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) not in self.cache:
            self.cache[len(x)] = self.weight[self.index]
        return x * self.cache[len(x)]


def test_a_cache_of_parameters_is_computed_in_every_call() -> None:
    net = interop.to_jax(Caches())
    weight = jnp.array([2.0, 3.0, 5.0])
    slope = jax.grad(lambda weight: net({"weight": weight}, jnp.ones(3)).sum())(weight)
    np.testing.assert_array_equal(slope, [1, 0, 2])


class Grows(torch.nn.Module):
    """Keeps a sum of what is constant, which is another in every call."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.of = of
        self.kept: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = self.weight * 1 if self.of == "weight" else torch.ones(3)
        self.kept = step if self.kept is None else self.kept + step
        return x * self.kept


@pytest.mark.parametrize("of", ["weight", "ones"])
def test_what_grows_in_every_call_is_no_cache(of: str) -> None:
    with pytest.raises(interop.ConversionError, match="forward keeps 'kept' for its next call"):
        interop.to_jax(Grows(of))({"weight": jnp.ones(3)}, jnp.ones(3))


def full_cache() -> torch.nn.Module:
    module = Caches()
    module(torch.ones(3))
    return module


def returned() -> torch.nn.Module:
    module = Calls(None)
    module.weight = torch.nn.Parameter(torch.ones(3))
    module.twice = module.weight * 2
    module.function = lambda x: (x, module.twice)
    return module


def in_a_closure() -> torch.nn.Module:
    module = Calls(None)
    module.weight = torch.nn.Parameter(torch.ones(3))
    twice = module.weight * 2
    module.function = lambda x: x + twice
    return module


@pytest.mark.parametrize("make", [full_cache, returned, in_a_closure])
def test_what_was_computed_before_is_refused(make: Any) -> None:
    """It was a constant: stale, and without a gradient."""
    with pytest.raises(interop.ConversionError, match=r"computed from parameters before forward"):
        interop.to_jax(make())({"weight": jnp.ones(3)}, jnp.ones(3))


class Locked(torch.nn.Module):
    """Draws noise in its first call, and keeps it."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.draw = draw
        self.noise: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.noise is None:
            self.noise = self.draw()
        return x + self.noise


DRAWS = {
    "randn": lambda: torch.randn(3),
    "in place": lambda: torch.empty(3).normal_(),
    "scaled": lambda: 2 * torch.rand(3) - 1,
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(3), 0.5),
}


@pytest.mark.parametrize("name", DRAWS)
def test_noise_that_is_drawn_once_is_no_cache(name: str) -> None:
    with pytest.raises(interop.ConversionError, match="forward keeps 'noise' for its next call"):
        interop.to_jax(Locked(DRAWS[name]))({}, jnp.ones(3), key=jax.random.key(0))

"""Networks whose depth changes, as torch's users write them, each against its pure twin."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import funcvi as fv

STEPS, BATCH, WIDTH, INPUTS = 100, 8, 5, 4


class Branches(nn.Module):
    """The first ``coin`` hidden layers, each with relu; only coin 0 reaches the output layer."""

    def __init__(self, middle: int = WIDTH, out: int = WIDTH) -> None:
        super().__init__()
        self.input = nn.Linear(INPUTS, WIDTH)
        self.hidden1 = nn.Linear(WIDTH, middle)
        self.hidden2 = nn.Linear(middle, WIDTH)
        self.hidden3 = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, out)

    def forward(self, x: Any, coin: int) -> Any:
        x = torch.relu(self.input(x))
        for layer in [self.hidden1, self.hidden2, self.hidden3][:coin]:
            x = torch.relu(layer(x))
        if coin == 0:
            x = self.output(x)
        return torch.log_softmax(x, dim=1)


class Shared(nn.Module):
    """One middle layer, applied as often as the coin says."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any, coin: int) -> Any:
        x = torch.relu(self.first(x))
        for _ in range(coin):
            x = torch.relu(self.middle(x))
        return torch.log_softmax(self.last(x), dim=1)


class TwoPaths(nn.Module):
    """One of two layers; the gradient of the other is None."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(INPUTS, 1)
        self.other = nn.Linear(INPUTS, 1)

    def forward(self, x: Any, coin: int) -> Any:
        return (self.one if coin == 0 else self.other)(x)


class While(nn.Module):
    """relu of a layer, as long as the norm of x is below 10."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(INPUTS, INPUTS)
        with torch.no_grad():
            self.layer.weight.copy_(1.3 * torch.eye(INPUTS) + 0.1)

    def forward(self, x: Any, coin: int) -> Any:
        while x.norm() < 10:
            x = torch.relu(self.layer(x))
        return x


def dense(params: Any, name: str, x: Any) -> Any:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def branches(params: Any, x: Any, coin: Any) -> Any:
    x = jax.nn.relu(dense(params, "input", x))

    def branch(depth: int) -> Any:
        def apply(params: Any, x: Any) -> Any:
            for i in range(depth):
                x = jax.nn.relu(dense(params, f"hidden{i + 1}", x))
            return dense(params, "output", x) if depth == 0 else x

        return apply

    return jax.nn.log_softmax(fv.choose(coin, [branch(d) for d in range(4)], params, x), axis=1)


def branches_used(name: str, coin: Any) -> Any:
    layer = name.split(".")[0]
    if layer == "input":
        return True
    return coin == 0 if layer == "output" else coin >= int(layer[-1])


def shared(params: Any, x: Any, coin: Any) -> Any:
    x = jax.nn.relu(dense(params, "first", x))
    x = fv.repeat(lambda x: jax.nn.relu(dense(params, "middle", x)), coin, x, max_times=3)
    return jax.nn.log_softmax(dense(params, "last", x), axis=1)


def two_paths(params: Any, x: Any, coin: Any) -> Any:
    paths = [lambda x, n=n: dense(params, n, x) for n in ("one", "other")]
    return fv.choose(coin, paths, x)


def loop(params: Any, x: Any, coin: Any) -> Any:
    return fv.while_loop(
        lambda x: jnp.linalg.norm(x) < 10,
        lambda x: jax.nn.relu(dense(params, "layer", x)),
        x,
        max_steps=50,
    )


# name: (module, twin, which parameters a coin uses, largest coin, scale of inputs)
NETWORKS: dict[str, tuple[Any, Any, Any, int]] = {
    "branches": (Branches, branches, branches_used, 3),
    "shared": (Shared, shared, lambda n, c: (c > 0) if n.startswith("middle") else True, 3),
    "two paths": (TwoPaths, two_paths, lambda n, c: c == (0 if n.startswith("one") else 1), 1),
}
OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=0.02), optax.sgd(0.02)),
    "momentum": (
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        optax.sgd(0.01, momentum=0.9),
    ),
    "Adam": (lambda p: torch.optim.Adam(p, lr=0.005), optax.adam(0.005)),
}


def params_of(module: nn.Module) -> dict[str, Any]:
    return {name: jnp.asarray(tensor.numpy()) for name, tensor in module.state_dict().items()}


@pytest.mark.few(4)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_that_of_torch_for_the_same_coins(
    name: str, optimizer: str, wide: bool
) -> None:
    make, twin, uses, largest = NETWORKS[name]
    make_torch, ours = OPTIMIZERS[optimizer]
    torch.manual_seed(0)
    module = make().to(torch.float64 if wide else torch.float32)
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((STEPS, BATCH, INPUTS)).astype(np.float64 if wide else np.float32)
    coins = rng.integers(0, largest + 1, STEPS).astype(np.int32)
    with jax.enable_x64(wide):
        params = params_of(module)
        wrapped = fv.only_used(ours)

        def step(state: Any, given: Any) -> Any:
            params, moments = state
            x, coin = given
            slopes = jax.grad(lambda p: jnp.mean(twin(p, x, coin) ** 2))(params)
            used = {n: uses(n, coin) for n in params}
            updates, moments = wrapped.update(slopes, moments, params, used=used)
            moved = optax.apply_updates(params, updates)
            return (moved, moments), moved

        start = (params, wrapped.init(params))
        (found, _), every = jax.jit(lambda s, g: jax.lax.scan(step, s, g))(start, (xs, coins))
        theirs = make_torch(module.parameters())
        for x, coin in zip(xs, coins, strict=True):
            theirs.zero_grad()
            module(torch.from_numpy(x), int(coin)).square().mean().backward()
            theirs.step()
        for key, tensor in module.state_dict().items():
            np.testing.assert_allclose(
                found[key], tensor.numpy(), rtol=0, atol=1e-10 if wide else 1e-5, err_msg=key
            )
            before = np.concatenate([np.asarray(params[key])[None], every[key][:-1]])
            still = np.array([not uses(key, c) for c in coins])
            assert (np.asarray(every[key])[still] == before[still]).all()
        assert jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype, found, params))


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loop_on_the_data_trains_as_in_torch(optimizer: str, wide: bool) -> None:
    make_torch, ours = OPTIMIZERS[optimizer]
    module = While().to(torch.float64 if wide else torch.float32)
    rng = np.random.default_rng(0)
    xs = np.abs(rng.standard_normal((STEPS, INPUTS))).astype(np.float64 if wide else np.float32)
    xs[::7] *= 100  # never enters the loop: the layer is unused
    with jax.enable_x64(wide):
        wrapped = fv.only_used(ours)

        def step(state: Any, x: Any) -> Any:
            params, moments = state
            slopes = jax.grad(lambda p: 1e-3 * jnp.sum((loop(p, x, None) - 9) ** 2))(params)
            used = jnp.linalg.norm(x) < 10
            updates, moments = wrapped.update(slopes, moments, params, used=used)
            return (optax.apply_updates(params, updates), moments), None

        params = params_of(module)
        state = (params, wrapped.init(params))
        (found, _), _ = jax.jit(lambda s, x: jax.lax.scan(step, s, x))(state, jnp.asarray(xs))
        theirs = make_torch(module.parameters())
        for x in xs:
            theirs.zero_grad()
            y = (module(torch.from_numpy(x), 0) - 9).square().sum() * 1e-3
            if y.requires_grad:
                y.backward()
            theirs.step()
        for key, tensor in module.state_dict().items():
            np.testing.assert_allclose(
                found[key], tensor.numpy(), rtol=0, atol=1e-10 if wide else 1e-5, err_msg=key
            )


def test_a_loop_that_never_ends_says_so() -> None:
    shrink = lambda x: fv.while_loop(  # noqa: E731
        lambda x: jnp.linalg.norm(x) < 10, lambda x: 0.5 * x, x, max_steps=30
    )
    x = jnp.ones(3)
    with pytest.raises(RuntimeError, match="still holds after max_steps=30 steps"):
        shrink(x)
    for run in (
        jax.jit(shrink),
        jax.jit(jax.grad(lambda x: shrink(x).sum())),
        jax.jit(jax.vmap(lambda s: shrink(s * x))),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="still holds after max_steps=30"):
            jax.block_until_ready(run(x))


def test_gradients_of_a_loop_are_those_of_its_steps() -> None:
    def body(x: Any) -> Any:
        return jnp.sin(x) * 1.4 + x

    def by_hand(x: Any) -> Any:
        for _ in range(37):
            x = body(x)
        return x

    def condition(state: Any) -> Any:
        return state[1] < 37

    def looped(x: Any, bound: int) -> Any:
        step = lambda s: (body(s[0]), s[1] + 1)  # noqa: E731
        return fv.while_loop(condition, step, (x, jnp.zeros((), jnp.int32)), max_steps=bound)[0]

    expected = jax.value_and_grad(by_hand)(0.01)
    for bound in (37, 40, 100):
        found = jax.jit(jax.value_and_grad(looped), static_argnums=1)(0.01, bound)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        np.testing.assert_allclose(
            jax.jvp(lambda x, b=bound: looped(x, b), (0.01,), (1.0,)), expected, rtol=1e-4
        )
    many = jax.vmap(jax.grad(looped), (0, None))(jnp.array([0.01, 0.3]), 50)
    np.testing.assert_allclose(many[0], expected[1], rtol=1e-4)


def test_memory_grows_with_the_root_of_the_bound() -> None:
    def loss(x: Any, bound: int) -> Any:
        end = lambda s: s[1] < bound  # noqa: E731
        step = lambda s: (jnp.sin(s[0]), s[1] + 1)  # noqa: E731
        return fv.while_loop(end, step, (x, jnp.zeros((), jnp.int32)), max_steps=bound)[0].sum()

    def memory(bound: int) -> int:
        compiled = jax.jit(jax.grad(loss), static_argnums=1).lower(jnp.ones(1000), bound).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(1600) < 8 * memory(16)


def test_branches_of_different_shapes_are_named() -> None:
    torch.manual_seed(0)
    params = params_of(Branches(middle=7, out=3))
    with pytest.raises(ValueError, match=r"branches\[0\] gives float32\[2, 3\]") as raised:
        branches(params, jnp.ones((2, INPUTS)), 0)
    for shape in (r"branches[1] gives float32[2, 7]", r"branches[3] gives float32[2, 5]"):
        assert shape in str(raised.value)
    assert "same width" in str(raised.value)
    with pytest.raises(ValueError, match=r"layers\[0\] turns float32\[3\] into float32\[2\]"):
        fv.apply_first([lambda x: x[:2]], 1, jnp.ones(3))


def test_a_depth_drawn_inside_jit() -> None:
    layers = [lambda x, i=i: x * (i + 2) for i in range(3)]

    @jax.jit
    def run(key: Any) -> Any:
        depth = jax.random.randint(key, (), 0, 4)
        return depth, fv.apply_first(layers, depth, jnp.ones(2))

    for key in jax.random.split(jax.random.key(0), 8):
        depth, found = run(key)
        np.testing.assert_array_equal(found, np.prod([2.0, 3.0, 4.0][: int(depth)]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: fv.choose(n, [jnp.sin, jnp.cos], 1.0), "choose: index must be from 0 to 1"),
        (lambda n: fv.apply_first([jnp.sin], n, 1.0), "apply_first: depth must be from 0 to 1"),
        (lambda n: fv.repeat(jnp.sin, n, 1.0, max_times=1), "repeat: times must be from 0 to 1"),
    ],
)
def test_a_depth_outside_of_its_range(call: Any, message: str) -> None:
    for depth in (-1, 2):
        with pytest.raises(ValueError, match=message):
            call(depth)
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(jax.jit(call)(depth))
    with pytest.raises(TypeError, match="expected an integer scalar"):
        call(0.5)


def test_used_must_be_given_and_fit() -> None:
    optimizer = fv.only_used(optax.adam(0.1))
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state = optimizer.init(params)
    with pytest.raises(TypeError, match="update needs used="):
        optimizer.update(params, state, params)
    with pytest.raises(ValueError, match="must be a prefix of the params"):
        optimizer.update(params, state, params, used={"a": True})


def test_without_the_wrapper_momentum_moves_what_was_not_used() -> None:
    """The plain behaviour, by choice."""
    plain, wrapped = optax.sgd(0.1, momentum=0.9), fv.only_used(optax.sgd(0.1, momentum=0.9))
    params = {"a": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    for optimizer, extra, moves in ((plain, {}, True), (wrapped, {"used": False}, False)):
        first = {} if moves else {"used": True}
        _, state = optimizer.update(params, optimizer.init(params), params, **first)
        updates, _ = optimizer.update(zero, state, params, **extra)
        assert bool(jnp.any(updates["a"] != 0)) is moves


def test_a_checkpoint_loads_into_another_forward() -> None:
    """Params depend on the layers alone: a torch class with another forward takes them."""

    class Straight(Branches):
        def forward(self, x: Any, coin: int = 3) -> Any:
            return torch.log_softmax(self.output(torch.relu(self.input(x))), dim=1)

    torch.manual_seed(0)
    params = params_of(Branches())
    straight = Straight()
    straight.load_state_dict({n: torch.from_numpy(np.array(p)) for n, p in params.items()})
    x = torch.randn(2, INPUTS)
    expected = branches(params, jnp.asarray(x.numpy()), 0)
    np.testing.assert_allclose(straight(x).detach(), expected, rtol=1e-5)

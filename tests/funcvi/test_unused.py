"""only_used against torch, which skips a parameter whose grad is None and ages its schedule."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcvi as fv

STEPS = 24
SHAPES = {"a": (2, 3), "b": (4,), "c": ()}

#: By name: torch's optimiser, and optax's for a learning rate that may be a schedule.
OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "SGD": (lambda p: torch.optim.SGD(p, 0.1), lambda lr: optax.sgd(lr)),
    "momentum": (
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        lambda lr: optax.sgd(lr, momentum=0.9, nesterov=True),
    ),
    "Adam": (lambda p: torch.optim.Adam(p, 0.1), lambda lr: optax.adam(lr)),
    "AdamW": (
        lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.3),
        lambda lr: optax.adamw(lr, weight_decay=0.3),
    ),
    "RMSprop": (
        lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.9),
        lambda lr: optax.rmsprop(lr, 0.9, eps_in_sqrt=False),
    ),
    "Adagrad": (
        lambda p: torch.optim.Adagrad(p, 0.1, eps=1e-20),
        lambda lr: optax.adagrad(lr, initial_accumulator_value=0.0, eps=1e-30),
    ),
    "Adadelta": (
        lambda p: torch.optim.Adadelta(p, 0.1, rho=0.9, weight_decay=0.0),
        lambda lr: optax.adadelta(lr, rho=0.9, eps=1e-6),
    ),
}
_rates = torch.optim.lr_scheduler
SCHEDULES: dict[str, tuple[Any, Any]] = {
    "constant": (lambda o: _rates.ConstantLR(o, 1.0), 0.1),
    "StepLR": (
        lambda o: _rates.StepLR(o, 4, 0.5),
        optax.exponential_decay(0.1, 4, 0.5, staircase=True),
    ),
    "ExponentialLR": (
        lambda o: _rates.ExponentialLR(o, 0.8),
        optax.exponential_decay(0.1, 1, 0.8),
    ),
    "CosineAnnealingLR": (
        lambda o: _rates.CosineAnnealingLR(o, STEPS),
        optax.cosine_decay_schedule(0.1, STEPS),
    ),
    "LambdaLR": (lambda o: _rates.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 0.1 / (1.0 + t)),
    "warm-up": (
        lambda o: _rates.LinearLR(o, 0.1, 1.0, total_iters=6),
        optax.linear_schedule(0.01, 0.1, 6),
    ),
}
BUILDS = {
    "schedule": lambda make, rate: make(rate),
    "injected": lambda make, rate: optax.inject_hyperparams(make)(lr=rate),
    "groups": lambda make, rate: optax.multi_transform(
        {"one": make(rate), "other": make(rate)},
        lambda tree: jax.tree.map_with_path(
            lambda path, _: "one" if path[0].key == "a" else "other", tree
        ),
    ),
}


def case(seed: int) -> tuple[Any, Any, Any]:
    """Params, and gradients and which are used for every step: some never, some not at first."""
    rng = np.random.default_rng(seed)
    draw = lambda *lead: {n: rng.standard_normal((*lead, *s)) for n, s in SHAPES.items()}  # noqa: E731
    share = rng.choice([0.0, 0.2, 0.5, 0.9, 1.0], len(SHAPES))
    used = {n: rng.random(STEPS) < p for n, p in zip(SHAPES, share, strict=True)}
    return draw(), draw(STEPS), used


def torch_path(make: Any, schedule: Any, case: Any) -> list[dict[str, Any]]:
    start, grads, used = case
    tensors = {n: torch.nn.Parameter(torch.tensor(x)) for n, x in start.items()}
    optimizer = make(tensors.values())
    rates, path = schedule(optimizer), []
    for t in range(STEPS):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grads[name][t]) if used[name][t] else None
        optimizer.step()
        rates.step()
        path.append({n: x.detach().numpy().copy() for n, x in tensors.items()})
    return path


def our_path(optimizer: Any, case: Any) -> Any:
    """Params after every step, from a scan, which holds the state to its shapes and dtypes."""
    wrapped = fv.only_used(optimizer)

    def step(carry: Any, given: Any) -> Any:
        params, state = carry
        grads, used = given
        updates, state = wrapped.update(grads, state, params, used=used)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start, grads, used = jax.tree.map(jnp.asarray, case)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, (grads, used))[1])
    return run((start, wrapped.init(start)))


@pytest.mark.few(4)
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_step_is_that_of_torch(optimizer: str, schedule: str, build: str) -> None:
    make_torch, make = OPTIMIZERS[optimizer]
    theirs, rate = SCHEDULES[schedule]
    with jax.enable_x64(True), np.errstate(invalid="ignore"):
        ours = BUILDS[build](make, rate)
        for seed in range(5):
            drawn = case(seed)
            found = our_path(ours, drawn)
            for t, expected in enumerate(torch_path(make_torch, theirs, drawn)):
                for name, x in expected.items():
                    np.testing.assert_allclose(
                        found[name][t], x, rtol=1e-5, atol=1e-7, err_msg=f"{name}, {seed}, {t}"
                    )


def test_a_schedule_counts_the_steps_that_do_not_use_a_parameter() -> None:
    optimizer = fv.only_used(optax.sgd(optax.exponential_decay(1.0, 1, 0.5)))
    params = {"a": jnp.zeros(())}
    state, grads = optimizer.init(params), {"a": jnp.ones(())}
    for is_used, expected in ((True, -1.0), (False, 0.0), (False, 0.0), (True, -0.125)):
        updates, state = optimizer.update(grads, state, params, used=is_used)
        assert float(updates["a"]) == expected


#: That each act on a leaf by itself: with all of it used, the wrapper changes nothing.
RATE = optax.exponential_decay(0.1, 2, 0.5)
BY_LEAF: dict[str, Any] = {
    name: lambda name=name: getattr(optax, name)(RATE)
    for name in (
        *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw"),
        *("adan", "amsgrad", "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd"),
        *("optimistic_gradient_descent", "radam", "rmsprop", "sgd", "sign_sgd", "yogi"),
    )
} | {
    "rprop": lambda: optax.rprop(0.1),
    "clip": lambda: optax.chain(optax.clip(0.5), optax.adam(RATE)),
    "zero_nans": lambda: optax.chain(optax.zero_nans(), optax.adam(RATE)),
    "ema": lambda: optax.chain(optax.ema(0.9), optax.scale_by_learning_rate(RATE)),
    "adaptive_grad_clip": lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.adam(RATE)),
    "weight decay": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE)),
    "injected": lambda: optax.inject_hyperparams(optax.adamw)(RATE, b1=lambda t: 0.9 - t / 100),
    "plateau": lambda: optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "muon": lambda: optax.contrib.muon(0.1),
    "mask": lambda: optax.adamw(RATE, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    "tree as mask": lambda: optax.adamw(RATE, mask={"a": True, "b": False, "c": False}),
    "labels": lambda: optax.multi_transform(
        {"one": optax.sgd(RATE), "other": optax.adam(0.1)}, {"a": "one", "b": "one", "c": "other"}
    ),
    "masked by path": lambda: optax.masked(
        optax.sgd(RATE), lambda p: jax.tree.map_with_path(lambda k, _: k[0].key == "a", p)
    ),
    "now and then": lambda: optax.conditionally_mask(optax.adam(0.1), lambda t: t % 2 == 0),
    "names": lambda: optax.named_chain(
        ("moments", optax.scale_by_adam()), ("rate", optax.scale_by_learning_rate(RATE))
    ),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", BY_LEAF)
def test_with_everything_used_the_wrapper_changes_nothing(name: str) -> None:
    plain, wrapped = optax.with_extra_args_support(BY_LEAF[name]()), fv.only_used(BY_LEAF[name]())
    params, grads, _ = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), case(0))
    ours = theirs = params
    state, plain_state = wrapped.init(params), plain.init(params)
    step, plain_step = jax.jit(wrapped.update), jax.jit(plain.update)
    avals = jax.tree.map(jax.typeof, state)
    for t in range(6):
        given = jax.tree.map(lambda x, t=t: x[t], grads)
        updates, state = step(given, state, ours, used=True, value=1.0)
        expected, plain_state = plain_step(given, plain_state, theirs, value=1.0)
        ours, theirs = optax.apply_updates(ours, updates), optax.apply_updates(theirs, expected)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), ours, theirs)
    assert jax.tree.map(lambda x: x.update(weak_type=False), avals) == jax.tree.map(
        lambda x: jax.typeof(x).update(weak_type=False), state
    )


TOGETHER = {
    "clip_by_global_norm": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "polyak_sgd": lambda: optax.polyak_sgd(),
}
UNKNOWN = {
    "MultiStepsState": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "ApplyEvery": lambda: optax.chain(optax.adam(0.1), optax.apply_every(2)),
    "ApplyIfFiniteState": lambda: optax.apply_if_finite(optax.adam(0.1), 2),
    "AddNoiseState": lambda: optax.add_noise(0.1, 0.5, key=jax.random.key(0)),
    "ScaleByLBFGSState": lambda: optax.lbfgs(),
    "ScheduleFreeState": lambda: optax.contrib.schedule_free_adamw(0.1),
    "ProdigyState": lambda: optax.contrib.prodigy(),
    "the state": lambda: optax.GradientTransformation(
        lambda p: {"count": jnp.zeros((), jnp.int32)}, lambda g, s, p=None: (g, s)
    ),
}


@pytest.mark.parametrize("name", TOGETHER | UNKNOWN)
def test_what_torch_has_no_counterpart_of_is_refused(name: str) -> None:
    optimizer = fv.only_used((TOGETHER | UNKNOWN)[name]())
    message = "looks at several leaves at once" if name in TOGETHER else f"only_used: {name} holds"
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones(())}
    for init in (optimizer.init, jax.jit(optimizer.init)):
        with pytest.raises(ValueError, match=message):
            init(params)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_used_of_another_shape_or_dtype_is_refused(jit: bool) -> None:
    optimizer = fv.only_used(optax.adam(0.1))
    params = {"a": jnp.ones(2)}
    state = optimizer.init(params)
    update = lambda used: optimizer.update(params, state, params, used=used)  # noqa: E731
    update = jax.jit(update) if jit else update
    with pytest.raises(ValueError, match=r"scalars.*got bool\[2\]"):
        update({"a": jnp.array([True, False])})
    for wrong in (jnp.array(1), jnp.array(0.5)):
        with pytest.raises(TypeError, match="booleans, got"):
            update({"a": wrong})


def test_one_of_many_fits() -> None:
    """Under vmap each element of a batch has its own flags and counts."""
    optimizer = fv.only_used(optax.adam(RATE))
    params = {"a": jnp.ones((2, 3))}
    state = jax.vmap(optimizer.init)(params)
    step = jax.vmap(
        lambda s, u: optimizer.update({"a": jnp.ones(3)}, s, {"a": jnp.ones(3)}, used=u)
    )
    updates, state = step(state, jnp.array([True, False]))
    assert (np.asarray(updates["a"])[0] != 0).all()
    assert not updates["a"][1].any()
    np.testing.assert_array_equal(state["a"][0].count, [1, 0])

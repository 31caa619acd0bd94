"""A small noisy loss, the optimisers to fit it with, and what a fit must equal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import funcvi as fv

KEY = jax.random.key(3)
START = {"x": jnp.array([1.0, -2.0]), "y": jnp.array(0.5)}


def noisy(params, key):
    noise = jax.random.normal(key, (2,))
    return jnp.sum((params["x"] - 3.0 + 0.1 * noise) ** 2) + (params["y"] - params["x"][0]) ** 2


def fit(optimizer=None, params=START, *, loss=noisy, key=KEY, num_steps=60, **options):
    optimizer = optax.adam(0.1) if optimizer is None else optimizer
    return fv.fit(loss, params, optimizer, key=key, num_steps=num_steps, **options)


def by_hand(loss, params, optimizer, key, num_steps, value_fn=False):
    """What fit promises, as a plain scan."""

    def step(carry, i):
        params, state = carry
        step_key = jax.random.fold_in(key, i)
        value, gradient = jax.value_and_grad(loss)(params, step_key)
        extra = {}
        if value_fn:
            extra = {"value": value, "grad": gradient, "value_fn": lambda p: loss(p, step_key)}
        updates, state = optimizer.update(gradient, state, params, **extra)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(params):
        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, jnp.arange(num_steps, dtype=jnp.int32))

    (params, _), losses = run(params)
    return params, losses


def leaves_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


OPTIMIZERS = {
    "sgd with momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "adam": lambda: optax.adam(0.1),
    "adamw": lambda: optax.adamw(0.1),
    "clip and schedule": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.3, 60))
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 3),
    "masked": lambda: optax.chain(
        optax.masked(optax.scale(0.5), {"x": True, "y": False}), optax.sgd(0.1)
    ),
    "multi_transform": lambda: optax.multi_transform(
        {"fast": optax.adam(0.1), "slow": optax.sgd(0.05)}, {"x": "fast", "y": "slow"}
    ),
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.1), 2),
}
WITH_VALUE = {
    "lbfgs": lambda: optax.lbfgs(),
    "reduce_on_plateau": lambda: optax.chain(
        optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=3)
    ),
    "polyak_sgd": lambda: optax.polyak_sgd(0.5),
}

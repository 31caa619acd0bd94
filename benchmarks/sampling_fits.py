"""Gamma draws where they are used: a fit in a loop, and one whole ELBO with its gradient."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import optax
from sampling_sides import Cell, Device, Program, failure, in_turn, jitted, log, tfp, torch

import funcvi as fv

__all__ = ["elbo", "fits"]

RATE = 1e-2
Run = Callable[[], tuple[float, float]]
"""Fits, and returns concentration and rate."""

# ---- the fit ------------------------------------------------------------------------------------


def _ours(steps: int, samples: int) -> Run:
    params, q = fv.unconstrain(nd.Gamma(1.0, 1.0))
    target = nd.Gamma(5.0, 5.0)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        return fv.kl(q(params), target, key=key, num_samples=samples, estimator="pathwise")

    def run() -> tuple[float, float]:
        optimizer = optax.adam(RATE)
        fit = fv.fit(
            loss, params, optimizer, key=jax.random.key(0), num_steps=steps, progress=False
        )
        found = q(fit.params)
        return float(found.concentration), float(found.rate)

    return run


def _scan(
    steps: int, samples: int, module: Any, draw: Callable[[Any, jax.Array, int], jax.Array]
) -> Run:
    optimizer = optax.adam(RATE)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        q = module.Gamma(jnp.exp(params[0]), jnp.exp(params[1]))
        x = draw(q, key, samples)
        return jnp.mean(q.log_prob(x) - module.Gamma(5.0, 5.0).log_prob(x))

    @jax.jit
    def train(params: Any, state: Any, key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, key)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, state), jax.random.split(key, steps))

    def run() -> tuple[float, float]:
        start = (jnp.zeros(()), jnp.zeros(()))
        (params, _), _ = jax.block_until_ready(
            train(start, optimizer.init(start), jax.random.key(0))
        )
        return float(jnp.exp(params[0])), float(jnp.exp(params[1]))

    return run


def _torch(steps: int, samples: int, device: Device) -> Run:
    def run() -> tuple[float, float]:
        torch.manual_seed(0)
        td = torch.distributions
        a, b = (torch.zeros((), device=device.torch, requires_grad=True) for _ in range(2))
        five = torch.full((), 5.0, device=device.torch)
        target = td.Gamma(five, five)
        optimizer = torch.optim.Adam([a, b], lr=RATE)
        for _ in range(steps):
            q = td.Gamma(a.exp(), b.exp())
            x = q.rsample((samples,))
            loss = (q.log_prob(x) - target.log_prob(x)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(a.exp().item()), float(b.exp().item())

    return run


def fits(steps: int, samples: int, repeats: int, device: Device) -> list[str]:
    """First call, compiling included, and warm calls, of every side in turn."""

    def by_tfp(q: Any, key: jax.Array, n: int) -> jax.Array:
        return q.sample(n, seed=jax.random.key_data(key))

    # Functions that make new closures, so that nothing compiled before is found again.
    sides: dict[str, Callable[[], Run] | str] = {
        "fv.fit": lambda: _ours(steps, samples),
        "torch eager": (lambda: _torch(steps, samples, device))
        if device.torch
        else device.without_torch(),
        "numpyro's Gamma in a jitted scan": lambda: _scan(
            steps, samples, nd, lambda q, key, n: q.rsample(key, (n,))
        ),
        "TFP's Gamma in a jitted scan": (lambda: _scan(steps, samples, tfp.distributions, by_tfp))
        if tfp
        else "not installed",
    }
    first: dict[str, list[float]] = {name: [] for name in sides}
    warm: dict[str, list[float]] = {name: [] for name in sides}
    last: dict[str, tuple[float, float]] = {}
    for i in range(repeats + 1):
        log(f"fit: round {i} of {repeats}")
        for name, make in sides.items():
            if isinstance(make, str):
                continue
            jax.clear_caches()
            try:
                run = make()
                times = []
                for _ in range(4):
                    start = time.perf_counter()
                    last[name] = run()
                    times.append(time.perf_counter() - start)
                    if times[-1] > 1.0 and len(times) > 1:
                        break  # long enough to be steady alone
            except Exception as error:  # a long table is not lost for one side
                sides[name] = failure(name, error)
                continue
            if i > 0:  # the first round pays for imports and threads
                first[name].append(times[0])
                warm[name].append(statistics.median(times[1:]))
    return _fit_table(sides, first, warm, last)


def _fit_table(
    sides: dict[str, Callable[[], Run] | str],
    first: dict[str, list[float]],
    warm: dict[str, list[float]],
    last: dict[str, tuple[float, float]],
) -> list[str]:
    rows = [
        "| side | first call, s | warm, s | fv.fit / side, first | fv.fit / side, warm | found |",
        "|---|---|---|---|---|---|",
    ]
    bounds = {"torch eager": (None, 1 / 12), "TFP's Gamma in a jitted scan": (0.6, 0.6)}
    for name, make in sides.items():
        if isinstance(make, str):
            rows.append(f"| {name} | {make} | {make} | | | |")
            continue
        pair = [statistics.median(times[name]) for times in (first, warm)]
        ours = [statistics.median(times["fv.fit"]) for times in (first, warm)]
        ratios = [
            f"**{a / b:.3f}**" if bound is not None and a / b > bound else f"{a / b:.3f}"
            for a, b, bound in zip(ours, pair, bounds.get(name, (None, None)), strict=True)
        ]
        found = ", ".join(f"{x:.2f}" for x in last[name])
        rows.append(
            f"| {name} | {pair[0]:.3f} | {pair[1]:.4f} | {ratios[0]} | {ratios[1]} "
            f"| Gamma({found}) |"
        )
    return rows


# ---- one ELBO -----------------------------------------------------------------------------------


def elbo(size: int, repeats: int, device: Device, bandwidth: float) -> list[str]:
    """Value and gradient, with ``size`` latent variables that each have their own q."""
    rng = np.random.default_rng(2)
    counts = rng.poisson(rng.gamma(2.0, 0.5, size)).astype(np.float32)
    start = {
        name: rng.standard_normal(size, dtype=np.float32)
        for name in ("log_concentration", "log_rate")
    }

    def loss(params: Any, key: jax.Array, y: jax.Array) -> jax.Array:
        q = nd.Gamma(jnp.exp(params["log_concentration"]), jnp.exp(params["log_rate"]))
        z = fv.sample(q, key)
        log_p = nd.Gamma(2.0, 2.0).log_prob(z) + nd.Poisson(z).log_prob(y)
        return -jnp.mean(log_p - q.log_prob(z))

    on_device = {name: jnp.asarray(x) for name, x in start.items()}
    programs: dict[str, Program | str] = {
        "ours": jitted(jax.value_and_grad(loss), on_device, jax.random.key(0), jnp.asarray(counts)),
        "torch": _torch_elbo(start, counts, device) if device.torch else device.without_torch(),
    }
    cells: dict[str, Cell] = in_turn(programs, repeats)
    ours, theirs = cells["ours"], cells["torch"]
    if isinstance(ours, str):
        return [f"The ELBO {ours}."]
    ratio = theirs if isinstance(theirs, str) else f"{ours.median / theirs.median:.2f}"
    if not isinstance(theirs, str) and ours.median > 0.5 * theirs.median:
        ratio = f"**{ratio}**"
    # Two parameters and a count are read, two slopes written.
    share = 4 * 5 * size / bandwidth / ours.median
    return [
        "| q | model | latent variables | ours, ms | ours / torch | share of copy bandwidth |",
        "|---|---|---|---|---|---|",
        f"| Gamma each | Gamma(2, 2) prior, Poisson counts | {size:,} | {1e3 * ours.median:.3f} "
        f"| {ratio} | {share:.0%} |",
    ]


def _torch_elbo(start: dict[str, np.ndarray], counts: np.ndarray, device: Device) -> Program:
    td = torch.distributions
    params = {name: torch.from_numpy(x).to(device.torch) for name, x in start.items()}
    y = torch.from_numpy(counts).to(device.torch)
    two = torch.full((), 2.0, device=device.torch)

    def run() -> Any:
        leaves = {name: x.detach().requires_grad_() for name, x in params.items()}
        q = td.Gamma(leaves["log_concentration"].exp(), leaves["log_rate"].exp())
        z = q.rsample()
        log_p = td.Gamma(two, two).log_prob(z) + td.Poisson(z).log_prob(y)
        loss = -(log_p - q.log_prob(z)).mean()
        loss.backward()
        device.synchronize()
        return loss, [x.grad for x in leaves.values()]

    return Program(run)

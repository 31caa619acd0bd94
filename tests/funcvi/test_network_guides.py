"""Guides over a network's weights, and networks with a state beside their weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import funcvi as fv

KEY = jax.random.key(5)
ROWS, NOISE = 200, 0.5
PRIOR = dist.Normal(0.0, 1.0)
GUIDES: dict[str, Any] = {
    "mean_field": {"guide": "mean_field"},
    "low_rank": {"guide": "low_rank", "rank": 4},
    "full_rank": {"guide": "full_rank"},
    "a function": {"guide": lambda target: fv.mean_field(target, scale=0.1)},
}


def numbers(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


MIXING = jnp.array([[1, 0.9, 0, 0], [0, 0.3, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 0.7]])
X = jnp.concatenate([numbers(ROWS, 3), jnp.ones((ROWS, 1))], axis=1) @ MIXING
Y = X @ jnp.array([1.0, -2.0, 0.5, 0.3]) + NOISE * numbers(ROWS, seed=9)


def linear(w: Any, x: Any) -> Any:
    return x @ jnp.concatenate([w["a"], w["b"]])


def log_likelihood(output: Any, y: Any) -> Any:
    return dist.Normal(output, NOISE).log_prob(y)


def regression(**options: Any) -> Any:
    start = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([0.3])}
    return fv.bayesian(linear, start, PRIOR, **{"scale": 0.1, **options})


@pytest.mark.parametrize("name", GUIDES)
def test_draws_marginals_kl_and_names_agree(name: str) -> None:
    net = regression(**GUIDES[name])
    params = jax.tree.map(lambda p: p + 0.3 * numbers(*p.shape, seed=3), net.params)
    posterior = net.posterior(params)
    draws = jax.jit(lambda p: jax.vmap(lambda k: net.sample(p, k))(jax.random.split(KEY, 20_000)))
    vectors = posterior.target.ravel(draws(params))
    marginals = net.marginals(params)
    loc = posterior.target.ravel({n: q.mean for n, q in marginals.items()})
    scale = posterior.target.ravel({n: q.scale for n, q in marginals.items()})
    error = 5 * scale / np.sqrt(len(vectors))
    assert (jnp.abs(vectors.mean(0) - loc) < error).all()
    assert (jnp.abs(vectors.std(0) - scale) < error).all()

    # the KL, by the densities of those draws
    log_q = posterior.log_prob(posterior.target.unravel(vectors))
    gaps = log_q - PRIOR.log_prob(vectors).sum(-1)
    found = jax.jit(net.kl)(params)
    assert abs(gaps.mean() - found) < 5 * gaps.std() / np.sqrt(len(gaps))
    np.testing.assert_allclose(net.kl(params), found, rtol=1e-5)

    # names, there and back: the marginals stay
    back = net.marginals(net.from_mu_log_sigma(net.to_mu_log_sigma(params)))
    for n, q in marginals.items():
        np.testing.assert_allclose(back[n].loc, q.loc, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(back[n].scale, q.scale, rtol=1e-4)
    np.testing.assert_allclose(net.mean(params)["a"], marginals["a"].loc)


@pytest.mark.parametrize("name", GUIDES)
def test_every_guide_starts_at_the_weights(name: str) -> None:
    net = regression(**GUIDES[name])
    np.testing.assert_allclose(net.mean(net.params)["a"], [1.0, -2.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(net.marginals(net.params)["b"].scale, 0.1, rtol=0.05)


@pytest.mark.parametrize("name", ["low_rank", "full_rank"])
def test_a_correlated_guide_reaches_the_exact_covariance(name: str) -> None:
    net = regression(**GUIDES[name])
    loss = net.negative_elbo(log_likelihood, data_size=ROWS, num_samples=16)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 4000))
    fit = fv.fit(loss, net.params, optimizer, key=KEY, num_steps=4000, args=(X, Y))
    precision = np.asarray(X.T @ X / NOISE**2 + jnp.eye(4), np.float64)
    covariance = np.linalg.inv(precision)
    mean = covariance @ np.asarray(X.T @ Y / NOISE**2)
    q = net.posterior(fit.params).unconstrained
    scale = np.sqrt(np.diag(covariance))
    assert (np.abs(q.mean - mean) < 0.15 * scale).all()
    found = np.asarray(q.covariance_matrix) / np.outer(scale, scale)
    np.testing.assert_allclose(found, covariance / np.outer(scale, scale), atol=0.12)
    p = dist.MultivariateNormal(jnp.zeros(4), jnp.eye(4))
    expected = dist.kl_divergence(dist.MultivariateNormal(q.mean, q.covariance_matrix), p)
    np.testing.assert_allclose(net.kl(fit.params), expected, rtol=1e-4)


def test_a_guide_that_is_not_normal_has_its_kl_by_draws() -> None:
    """Laplace posteriors, as a family that the user brings."""

    def laplace(target: fv.Target) -> fv.Guide:
        start = {n: dist.Laplace(jnp.zeros(s), 0.1).to_event(1) for n, s in target.shapes.items()}
        params, family = fv.unconstrain(start)
        return fv.Guide(target, lambda key: params, family)

    net = regression(guide=laplace)
    assert net(net.params, X, key=KEY).shape == (ROWS,)
    expected = 4 * fv.kl(dist.Laplace(0.0, 0.1), PRIOR, key=KEY, num_samples=100_000)
    found = jax.jit(lambda k: net.kl(net.params, key=k, num_samples=20_000))(KEY)
    np.testing.assert_allclose(found, expected, rtol=0.01)
    loss = net.negative_elbo(log_likelihood, data_size=ROWS)
    assert jnp.isfinite(loss(net.params, KEY, X, Y))
    with pytest.raises(ValueError, match=r"no closed form: pass key="):
        net.kl(net.params)
    with pytest.raises(TypeError, match="marginals of this guide are not normal"):
        net.mean(net.params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_weights_keep_their_dtype(dtype: Any) -> None:
    weights = {"w": jnp.ones((3, 2), dtype), "b": jnp.zeros(2, dtype)}
    for guide in ("mean_field", "low_rank"):
        net = fv.bayesian(lambda w, x: x @ w["w"] + w["b"], weights, PRIOR, guide=guide)
        assert {w.dtype for w in jax.tree.leaves(net.sample(net.params, KEY))} == {jnp.dtype(dtype)}
        assert net(net.params, jnp.ones((4, 3), dtype), key=KEY).dtype == dtype
    for estimator in ("local", "flipout"):
        net = fv.bayesian(lambda w, x: x @ w["w"] + w["b"], weights, PRIOR)
        x = jnp.ones((4, 3), dtype)
        assert net(net.params, x, key=KEY, estimator=estimator).dtype == dtype


# ---- state ---------------------------------------------------------------------------------------


def normalised(w: Any, x: Any, state: Any, train: bool = True) -> Any:
    """Batch normalisation with a moving mean, and a count of calls."""
    mean = x.mean(0) if train else state["mean"]
    after = {"mean": 0.9 * state["mean"] + 0.1 * x.mean(0), "count": state["count"] + 1}
    return (x - mean) @ w["w"] + w["b"], after if train else state


def stateful() -> Any:
    weights = {"w": jnp.ones(4), "b": jnp.zeros(())}
    state = {"mean": jnp.zeros(4), "count": jnp.zeros((), jnp.int32)}
    return fv.bayesian(normalised, weights, PRIOR, scale=0.1, state=state)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_loss_returns_the_state(num_samples: int) -> None:
    net = stateful()
    loss = net.negative_elbo(log_likelihood, data_size=ROWS, num_samples=num_samples)
    value, state = jax.jit(loss)(net.params, KEY, X, Y, state=net.state)
    np.testing.assert_allclose(state["mean"], 0.1 * X.mean(0), rtol=1e-5)
    assert state["count"] == 1
    assert state["count"].dtype == jnp.int32
    centred = fv.bayesian(
        lambda w, x: (x - X.mean(0)) @ w["w"] + w["b"],
        {"w": jnp.ones(4), "b": 0.0},
        PRIOR,
        scale=0.1,
    )
    without = centred.negative_elbo(log_likelihood, data_size=ROWS, num_samples=num_samples)
    np.testing.assert_allclose(value, without(net.params, KEY, X, Y), rtol=1e-5)


def test_predictions_read_the_state_that_is_passed() -> None:
    net = stateful()
    state = {"mean": jnp.full(4, 2.0), "count": jnp.zeros((), jnp.int32)}
    options: dict[str, Any] = {"key": KEY, "num_samples": 3, "train": False}
    found = net.predict(net.params, X, state=state, **options)
    without = fv.bayesian(
        lambda w, x: (x - 2.0) @ w["w"] + w["b"], {"w": jnp.ones(4), "b": 0.0}, PRIOR, scale=0.1
    )
    expected = without.predict(net.params, X, key=KEY, num_samples=3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    output, after = net(net.params, X, key=KEY, state=state)
    assert output.shape == (ROWS,)
    assert after["count"] == 1
    assert fv.networks.layers_found(net, net.params, X)["w"].kind == "local"


@pytest.mark.slow
def test_flax_batch_normalisation() -> None:
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool) -> Any:
            x = linen.Dense(8)(x)
            x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            return linen.Dense(1)(jnp.tanh(x))[:, 0]

    module = Network()
    variables = module.init(KEY, X, True)
    with pytest.raises(ValueError, match=r"'batch_stats' beside the weights: pass variables"):
        fv.bayesian(module.apply, variables, PRIOR)
    with pytest.raises(ValueError, match=r"'batch_stats' beside the weights"):
        fv.bayesian(module.apply, {"net": variables["batch_stats"], "batch_stats": X}, PRIOR)

    def function(params: Any, x: Any, state: Any, train: bool = True) -> Any:
        output, after = module.apply({"params": params, **state}, x, train, mutable=["batch_stats"])
        return output, after if train else state

    state = {"batch_stats": variables["batch_stats"]}
    net = fv.bayesian(function, variables["params"], PRIOR, state=state)
    kinds = {n: v.kind for n, v in fv.networks.layers_found(net, net.params, X).items()}
    assert {n: kind for n, kind in kinds.items() if kind != "plain"} == {
        "Dense_0.kernel": "refused",  # its outputs' rows meet in the statistics of the batch
        "Dense_1.kernel": "local",
    }
    loss = net.negative_elbo(log_likelihood, data_size=ROWS)

    fit = fv.fit(
        loss, net.params, optax.sgd(1e-5), key=KEY, num_steps=60, args=(X, Y), state=net.state
    )
    params, state = fit.params, fit.state
    mean = state["batch_stats"]["BatchNorm_0"]["mean"]
    dense = net.mean(params)["Dense_0"]
    expected = X.mean(0) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(mean, expected, atol=0.1)
    draws = net.predict(params, X, key=KEY, num_samples=4, state=state, train=False)
    assert draws.shape == (4, ROWS)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "local draws of correlated weights": (
        lambda: regression(**GUIDES["low_rank"])(
            regression(**GUIDES["low_rank"]).params, X, key=KEY, estimator="local"
        ),
        ValueError,
        r"estimator='local' needs independent normal weights.*use estimator='plain'",
    ),
    "another guide": (
        lambda: regression(guide="flow"),
        ValueError,
        r"guide must be 'mean_field', 'low_rank', 'full_rank' or a function.*got 'flow'",
    ),
    "a guide of another target": (
        lambda: regression(guide=lambda _: regression().guide),
        TypeError,
        r"must give a guide for the target that it is handed",
    ),
    "no state": (
        lambda: stateful()(stateful().params, X, key=KEY),
        ValueError,
        r"this network has a state: pass state=net.state at the start, state=fit.state",
    ),
    "a state too many": (
        lambda: regression()(regression().params, X, key=KEY, state=1.0),
        ValueError,
        r"has no state, but state= is given: make it by fv.bayesian\(..., state=",
    ),
    "buffers": (
        lambda: fv.bayesian(linear, {"bn.weight": X, "bn.running_mean": X}, PRIOR),
        ValueError,
        r"'bn.running_mean' are buffers, not weights: pass net.params",
    ),
    "nothing random": (lambda: regression(only=[]), ValueError, r"only=\[\] leaves no weight"),
    "a positive prior": (
        lambda: fv.bayesian(linear, {"a": X}, dist.HalfNormal(1.0)),
        ValueError,
        r"the prior of 'a' has the support positive; a weight may take any real value",
    ),
    "a weight that is a function": (
        lambda: fv.bayesian(linear, {"a": X, "act": jnp.tanh}, PRIOR),
        TypeError,
        r"'act' is of type .*; weights must be floating-point arrays. Separate",
    ),
    "a pattern for plain that matches nothing": (
        lambda: regression()(regression().params, X, key=KEY, estimator="local", plain=["c"]),
        ValueError,
        r"plain: no weight's name matches 'c'; the names are a, b",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()

"""Bayesian networks: the exact posterior, variance of gradients, names, predictions, refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import funcvi as fv

KEY = jax.random.key(5)


def numbers(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


# ---- linear regression, where everything is known -----------------------------------------------

ROWS, NOISE = 200, 0.5
X = jnp.concatenate([numbers(ROWS, 3), jnp.ones((ROWS, 1))], axis=1)
Y = X @ jnp.array([1.0, -2.0, 0.5, 0.3]) + NOISE * numbers(ROWS, seed=9)


def linear(w: Any, x: Any) -> Any:
    return x @ w["w"]


def log_likelihood(output: Any, y: Any) -> Any:
    return dist.Normal(output, NOISE).log_prob(y)


def regression() -> Any:
    return fv.bayesian(linear, {"w": jnp.zeros(4)}, dist.Normal(0.0, 1.0), scale=0.1)


def exact_negative_elbo(loc: Any, scale: Any) -> Any:
    """In closed form, constants included."""
    residual = jnp.sum((Y - X @ loc) ** 2) + jnp.sum(X**2 @ scale**2)
    expected = -0.5 * residual / NOISE**2 - ROWS * jnp.log(NOISE * jnp.sqrt(2 * jnp.pi))
    divergence = 0.5 * jnp.sum(scale**2 + loc**2 - 1 - 2 * jnp.log(scale))
    return divergence - expected


@pytest.mark.parametrize("estimator", ["plain", "local", "flipout"])
def test_the_gradient_is_unbiased_in_minibatches(estimator: Any) -> None:
    net = regression()
    loss = net.negative_elbo(log_likelihood, data_size=ROWS, estimator=estimator)

    def exact(params: Any) -> Any:
        q = net.marginals(params)["w"]
        return exact_negative_elbo(q.loc, q.scale)

    def one(key: Any) -> Any:
        rows, key = jax.random.split(key)
        chosen = jax.random.choice(rows, ROWS, (20,), replace=False)
        slopes = jax.grad(loss)(net.params, key, X[chosen], Y[chosen])
        return jnp.concatenate([jnp.ravel(s) for s in jax.tree.leaves(slopes)])

    found = jax.jit(jax.vmap(one))(jax.random.split(KEY, 20_000))
    expected = jnp.concatenate([jnp.ravel(s) for s in jax.tree.leaves(jax.grad(exact)(net.params))])
    error = found.std(0) / np.sqrt(len(found))
    assert (jnp.abs(found.mean(0) - expected) < 5 * error).all()


def test_local_reparameterisation_has_a_fifth_of_the_variance() -> None:
    net = regression()

    def variance(estimator: Any) -> Any:
        loss = net.negative_elbo(log_likelihood, data_size=ROWS, estimator=estimator)
        slopes = jax.jit(jax.vmap(lambda k: jax.grad(loss)(net.params, k, X, Y)))(
            jax.random.split(KEY, 2000)
        )
        return sum(jnp.sum(jnp.var(s, axis=0)) for s in jax.tree.leaves(slopes))

    assert variance("local") < variance("plain") / 5


def test_the_fit_reaches_the_exact_posterior() -> None:
    """The best independent normals: the exact mean, and the precision's diagonal."""
    net = regression()
    loss = net.negative_elbo(log_likelihood, data_size=ROWS)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, 2000))
    fit = fv.fit(lambda p, k: loss(p, k, X, Y), net.params, optimizer, key=KEY, num_steps=2000)
    precision = np.asarray(X.T @ X / NOISE**2 + jnp.eye(4), np.float64)
    mean = np.linalg.solve(precision, np.asarray(X.T @ Y / NOISE**2))
    q = net.marginals(fit.params)["w"]
    np.testing.assert_allclose(q.loc, mean, atol=4e-3)
    np.testing.assert_allclose(q.scale, 1 / np.sqrt(np.diag(precision)), rtol=0.05)


# ---- names, priors, parts -----------------------------------------------------------------------


def test_only_the_chosen_weights_are_random() -> None:
    weights = {"body": {"w": numbers(3, 4)}, "head": {"w": numbers(4, 2), "b": jnp.zeros(2)}}

    def apply(w: Any, x: Any) -> Any:
        return jnp.tanh(x @ w["body"]["w"]) @ w["head"]["w"] + w["head"]["b"]

    prior = {"*.b": dist.Normal(0.0, 3.0), "head.*": dist.Laplace(0.0, 1.0)}
    net = fv.bayesian(apply, weights, prior, only=["head.*"])
    assert set(net.params["random"]) == {"head.w", "head.b"}
    assert set(net.params["point"]) == {"body.w"}
    assert isinstance(net.prior["head.w"], dist.Distribution)
    assert net.prior["head.b"].batch_shape == (2,)
    x = numbers(5, 3)
    keys = jax.random.split(KEY)
    one, other = (net(net.params, x, key=k) for k in keys)
    assert (one != other).any()
    assert jax.tree.structure(net.mean(net.params)) == jax.tree.structure(weights)
    np.testing.assert_array_equal(net.mean(net.params)["body"]["w"], weights["body"]["w"])
    np.testing.assert_allclose(apply(net.sample(net.params, KEY), x), apply(weights, x), atol=1)
    assert net.predict(net.params, x, key=KEY, num_samples=7).shape == (7, 5, 2)
    assert jnp.isfinite(net.kl(net.params, key=KEY))


def test_a_prior_from_a_checkpoint() -> None:
    weights = {"w": numbers(3, 2)}
    prior = {"w": dist.Normal(weights["w"], 0.5)}
    net = fv.bayesian(lambda w, x: x @ w["w"], weights, prior, scale=0.5)
    np.testing.assert_allclose(net.kl(net.params), 0.0, atol=1e-5)


def test_the_kl_is_a_sum_over_weights() -> None:
    one = fv.bayesian(linear, {"w": jnp.zeros(4)}, dist.Normal(0.0, 1.0), scale=0.1)
    many = fv.bayesian(linear, {"w": jnp.zeros(400)}, dist.Normal(0.0, 1.0), scale=0.1)
    np.testing.assert_allclose(100 * one.kl(one.params), many.kl(many.params), rtol=1e-5)


class Buffered:
    """As a converted torch module, with batch normalisation."""

    def __init__(self) -> None:
        self.buffers = {"1.running_mean": jnp.zeros(4), "1.running_var": jnp.ones(4)}

    def __call__(self, w: Any, x: Any) -> Any:
        return linear(w, x)


class Module:
    """As a torch module that was not converted."""

    __module__ = "torch.nn.modules.linear"

    def __call__(self, x: Any) -> Any:
        return x


def test_a_network_prints_its_weights_by_name() -> None:
    weights = {"body": {"w": numbers(3, 4)}, "head": {"w": numbers(4, 2)}}
    net = fv.bayesian(lambda w, x: x, weights, dist.Normal(0.0, 1.0), only=["head.*"])
    assert repr(net) == (
        "BayesianNetwork with 1 random weight(s)\n"
        "  head.w: shape (4, 2), prior Normal\n"
        "  1 point weight(s): body.w"
    )
    many = {f"w{i}": numbers(2) for i in range(30)}
    shown = repr(fv.bayesian(lambda w, x: x, many, dist.Normal(0.0, 1.0)))
    assert shown.endswith("\n  and 10 more")


def test_a_fit_is_diagnosed_against_prior_and_data() -> None:
    net = regression()
    with pytest.raises(ValueError, match=r"target is the prior of a network's weights alone"):
        fv.diagnose(net.posterior(net.params), key=KEY)

    def log_joint(w: Any) -> Any:
        return dist.Normal(0.0, 1.0).log_prob(w["w"]).sum() + log_likelihood(linear(w, X), Y).sum()

    loss = net.negative_elbo(log_likelihood, data_size=ROWS)
    fit = fv.fit(loss, net.params, optax.adam(2e-2), key=KEY, num_steps=1500, args=(X, Y))
    target = fv.target(log_joint, supports={"w": (dist.constraints.real, (4,))})
    guide = fv.Guide(target, net.guide.init, net.guide.family)
    found = fv.diagnose(guide(fit.params["random"]), key=KEY)
    assert found.reliable
    q = net.marginals(fit.params)["w"]
    exact = -exact_negative_elbo(q.loc, q.scale)
    assert abs(found.elbo - exact) < 5 * found.elbo_standard_error


REFUSED = {
    "an estimator that there is not": (
        lambda: regression().negative_elbo(log_likelihood, data_size=ROWS, estimator="lrt"),
        ValueError,
        r"estimator must be 'plain', 'local' or 'flipout', got 'lrt'",
    ),
    "no name of an estimator": (
        lambda: regression()(regression().params, X, key=KEY, estimator=3),
        ValueError,
        r"estimator must be 'plain', 'local' or 'flipout', got 3",
    ),
    "statistics without a state": (
        lambda: fv.bayesian(Buffered(), {"w": jnp.zeros(4)}, dist.Normal(0.0, 1.0)),
        ValueError,
        r"'1.running_mean', '1.running_var', which it would read in evaluation mode.*state=",
    ),
    "a torch module": (
        lambda: fv.bayesian(Module(), {"w": jnp.zeros(4)}, dist.Normal(0.0, 1.0)),
        TypeError,
        r"the function is a torch module: net = interop.to_jax\(module\) first",
    ),
    "a pattern that matches nothing": (
        lambda: fv.bayesian(linear, {"w": jnp.zeros(4)}, {"weight": dist.Normal(0.0, 1.0)}),
        ValueError,
        r"prior: no weight's name matches 'weight'; the names are w",
    ),
    "only nothing": (
        lambda: fv.bayesian(linear, {"w": jnp.zeros(4)}, dist.Normal(0.0, 1.0), only=["head.*"]),
        ValueError,
        r"only: no weight's name matches 'head.\*'",
    ),
    "no prior": (
        lambda: fv.bayesian(linear, {"w": jnp.zeros(4), "b": 0.0}, {"w": dist.Normal(0.0, 1.0)}),
        ValueError,
        r"no prior for 'b'",
    ),
    "integers": (
        lambda: fv.bayesian(linear, {"w": jnp.arange(4)}, dist.Normal(0.0, 1.0)),
        TypeError,
        r"weight 'w' is int32; weights must be floating-point",
    ),
    "a prior of another shape": (
        lambda: fv.bayesian(linear, {"w": jnp.zeros(4)}, dist.Normal(jnp.zeros(3), 1.0)),
        ValueError,
        r"the prior of 'w' has shape \(3,\), which does not broadcast to the weight's \(4,\)",
    ),
    "no data size": (
        lambda: regression().negative_elbo(log_likelihood, data_size=None),
        ValueError,
        r"data_size must be the number of rows of all data, got None",
    ),
    "a data size below the batch": (
        lambda: regression().negative_elbo(log_likelihood, data_size=10)(
            regression().params, KEY, X, Y
        ),
        ValueError,
        r"a batch of 200 rows is larger than data_size=10",
    ),
    "a log likelihood that is a sum": (
        lambda: regression().negative_elbo(lambda o, y: log_likelihood(o, y).sum(), data_size=ROWS)(
            regression().params, KEY, X, Y
        ),
        ValueError,
        r"one number for each of 200 rows, got shape \(\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


# ---- predictions --------------------------------------------------------------------------------


def test_calibration_error_is_the_gap_over_bins() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 100_000)
    probabilities = jnp.stack([confidence, 1 - confidence], axis=1)
    right = rng.uniform(size=100_000) < confidence
    assert fv.networks.calibration_error(probabilities, jnp.where(right, 0, 1)) < 0.01
    overconfident = rng.uniform(size=100_000) < confidence - 0.2
    found = fv.networks.calibration_error(probabilities, jnp.where(overconfident, 0, 1))
    np.testing.assert_allclose(found, 0.2, atol=0.01)


def test_entropy_is_split_into_noise_and_weights() -> None:
    logits = numbers(50, 4, 3)
    found = jax.jit(fv.networks.predicted_classes)(logits)
    p = np.asarray(jax.nn.softmax(logits, -1))
    np.testing.assert_allclose(found.probabilities, p.mean(0), rtol=1e-5)
    entropy = -(p.mean(0) * np.log(p.mean(0))).sum(-1)
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-5)
    within = -(p * np.log(p)).sum(-1).mean(0)
    np.testing.assert_allclose(found.mutual_information, entropy - within, rtol=1e-4, atol=1e-6)


def test_predictions_of_a_network_that_convolves() -> None:
    def network(w: Any, x: Any) -> Any:
        return {"sum": jax.lax.conv(x, w["kernel"], (1, 1), "VALID").sum((1, 2, 3))}

    net = fv.bayesian(network, {"kernel": jnp.ones((2, 1, 3, 3))}, dist.Normal(0.0, 1.0), scale=0.1)
    x, key = jnp.ones((4, 1, 5, 5)), jax.random.key(0)
    found = net.predict(net.params, x, key=key, num_samples=3)["sum"]
    looped = jax.jit(lambda p, x: net.predict(p, x, key=key, num_samples=3))(net.params, x)["sum"]
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, looped, rtol=1e-5)

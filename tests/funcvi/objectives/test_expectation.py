"""Expectations against closed forms: exact sums, draws, and gradients of both."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv

KEY = jax.random.key(9)
LAYERS = jnp.array([0.7, -1.2, 1.6])


def test_a_distribution_over_depth_trains_its_layers_and_itself():
    """Under every depth's loss the exact sum, against sums written out."""
    target = 0.5

    def losses(layers, x):
        outputs = [x]
        for layer in layers:
            outputs.append(jnp.tanh(layer * outputs[-1]))
        return (jnp.stack(outputs) - target) ** 2

    def loss(params):
        q = dist.Categorical(logits=params["logits"])
        each = losses(params["layers"], 2.0)
        return fv.expectation(q, lambda depth: each[depth]) + fv.kl(
            q, dist.Categorical(jnp.ones(4) / 4)
        )

    params = {"logits": jnp.array([0.1, 0.5, -0.3, 0.0]), "layers": LAYERS}
    found, slopes = jax.jit(jax.value_and_grad(loss))(params)

    def by_hand(params):
        p = jax.nn.softmax(params["logits"])
        return jnp.sum(p * losses(params["layers"], 2.0)) + jnp.sum(p * jnp.log(4 * p))

    value, expected = jax.value_and_grad(by_hand)(params)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    for name in params:
        np.testing.assert_allclose(slopes[name], expected[name], atol=1e-6)
    # Gradient descent finds the best depth's share: q is proportional to exp(-loss).
    start = {"logits": jnp.zeros(4), "layers": LAYERS}
    step = jax.jit(lambda p: {**p, "logits": p["logits"] - 0.5 * jax.grad(loss)(p)["logits"]})
    for _ in range(300):
        start = step(start)
    best = jax.nn.softmax(-losses(LAYERS, 2.0))
    np.testing.assert_allclose(jax.nn.softmax(start["logits"]), best, atol=1e-4)


CASES = {
    # q of theta, f, the exact expectation
    "normal": (lambda t: dist.Normal(t, 1.0), lambda x: x**2, lambda t: t**2 + 1),
    "gamma": (lambda t: dist.Gamma(t, 2.0), lambda x: x, lambda t: t / 2),
    "bernoulli": (lambda t: dist.Bernoulli(t), lambda x: 3.0 * x + 1, lambda t: 3 * t + 1),
    "poisson": (lambda t: dist.Poisson(t), lambda x: x**2 * 1.0, lambda t: t**2 + t),
    "scored": (lambda t: dist.Normal(t, 1.0), lambda x: x**2, lambda t: t**2 + 1),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_unbiased(name):
    q, f, exact = CASES[name]
    theta = 0.6
    estimator = "score_function" if name == "scored" else None

    def one(theta, key):
        return fv.expectation(q(theta), f, key=key, num_samples=40, estimator=estimator)

    keys = jax.random.split(KEY, 2000)
    found = jax.jit(jax.vmap(jax.value_and_grad(one), (None, 0)))(theta, keys)
    for draws, expected in zip(found, jax.value_and_grad(exact)(theta), strict=True):
        error = 5 * np.std(draws) / np.sqrt(len(keys)) + 1e-5
        assert abs(np.mean(np.asarray(draws, np.float64)) - expected) < error


@pytest.mark.slow
def test_batches_events_and_float64():
    with jax.enable_x64(True):
        q = dist.Dirichlet(jnp.ones((5, 3)))
        found = fv.expectation(q, lambda x: x[..., 0], key=KEY, num_samples=4000)
        assert found.shape == (5,)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, 1 / 3, atol=0.03)
        q = dist.Categorical(logits=jnp.array([[0.0, -1e4], [0.0, 0.0]]))
        found = fv.expectation(q, lambda x: jnp.array([2.0, jnp.inf])[x])
        assert list(found) == [2.0, jnp.inf]  # what cannot happen does not count


@pytest.mark.parametrize(
    ("q", "options", "message"),
    [
        (dist.Normal(0.0, 1.0), {}, "pass key="),
        (dist.Bernoulli(0.3), {"estimator": "pathwise", "key": KEY}, "zero or biased"),
        (dist.Normal(0.0, 1.0), {"estimator": "enumeration"}, "no small finite support"),
        (dist.Poisson(2.0), {"key": KEY, "num_samples": 1}, "num_samples >= 2"),
        (dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(1), {"key": KEY}, "sum over the other axes"),
        (dist.Normal(0.0, 1.0), {"estimator": "other"}, "enumeration"),
    ],
)
def test_refusals(q, options, message):
    with pytest.raises(ValueError, match=message):
        fv.expectation(q, lambda x: x * 1.0, **options)


def test_a_joint_is_drawn_member_by_member():
    """A discrete member by the score function, the other pathwise: E[n x] = rate * loc."""

    def one(theta, key):
        q = {"x": dist.Normal(theta["loc"], 1.0), "n": dist.Poisson(theta["rate"])}
        return fv.expectation(q, lambda d: d["n"] * d["x"], key=key, num_samples=50)

    theta = {"loc": jnp.array(0.7), "rate": jnp.array(2.0)}
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(one), (None, 0)))(
        theta, jax.random.split(KEY, 1000)
    )
    exact = {"loc": 2.0, "rate": 0.7}
    for draws, expected in ((values, 1.4), *((slopes[n], exact[n]) for n in exact)):
        error = 5 * np.std(draws) / np.sqrt(1000) + 1e-5
        assert abs(np.mean(draws) - expected) < error


def test_a_dict_is_drawn_by_the_same_keys_in_whatever_order_it_was_written():
    """jit sorts the dicts that pass through it."""
    a, b = dist.Normal(0.3, 1.0), dist.Gamma(2.0, 1.0)
    p = {"a": dist.Laplace(), "b": dist.LogNormal()}

    def run(q):
        mean = fv.expectation(q, lambda d: d["a"] * d["b"], key=KEY, num_samples=4)
        return mean, fv.kl(q, p, key=KEY, num_samples=4), fv.sample(q, KEY)

    expected = run({"a": a, "b": b})
    for result in (run({"b": b, "a": a}), jax.jit(run)({"b": b, "a": a})):
        for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)


def test_a_mask_hides_nothing_from_an_expectation():
    """Its log density is zero there: the sum over values counted each of them fully."""
    for wrap in (lambda d: d.mask(False), lambda d: d.mask(jnp.array(False)).expand([2])):
        mean = fv.expectation(wrap(dist.Bernoulli(0.3)), lambda x: 4.0 * x + 1)
        np.testing.assert_allclose(mean, 2.2, rtol=1e-6)
    events = dist.Bernoulli(jnp.array([0.3, 0.5])).mask(jnp.array([True, False])).to_event(1)
    keys = jax.random.split(KEY, 500)

    def slope(key):
        return jax.grad(
            lambda t: fv.expectation(
                dist.Normal(t, 1.0).mask(jnp.array([True, False])).to_event(1),
                lambda x: (x**2).sum(-1),
                key=key,
                estimator="score_function",
            )
        )(jnp.array([0.5, 1.0]))

    draws = np.asarray(jax.jit(jax.vmap(slope))(keys), np.float64)
    assert np.all(abs(draws.mean(0) - [1.0, 2.0]) < 5 * draws.std(0) / np.sqrt(500))
    mean = fv.expectation(events, lambda x: x.sum(-1) * 1.0, key=KEY, num_samples=20_000)
    assert abs(float(mean) - 0.8) < 5 * 0.7 / np.sqrt(20_000)


def test_an_angle_is_scored_unless_the_function_is_said_to_be_periodic():
    """The mean of the angle itself: where it jumps at pi, no derivative along a draw sees it."""
    grid = np.linspace(-np.pi, np.pi, 20_001)
    density = np.exp(2.0 * np.cos(grid - 2.5))
    slope = np.trapezoid(grid * density * 2.0 * np.sin(grid - 2.5), grid)
    exact = slope / np.trapezoid(density, grid)

    def gradient(key, estimator):
        return jax.grad(
            lambda loc: fv.expectation(
                dist.VonMises(loc, 2.0), lambda x: x, key=key, estimator=estimator
            )
        )(2.5)

    keys = jax.random.split(KEY, 400)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: gradient(k, None)))(keys), np.float64)
    assert abs(draws.mean() - exact) < 5 * draws.std() / 20
    forced = np.asarray(jax.jit(jax.vmap(lambda k: gradient(k, "pathwise")))(keys))
    np.testing.assert_allclose(forced, 1.0, atol=1e-3)  # the promise was false: all draws shift


def test_a_mixture_is_summed_over_its_components():
    """Without noise where the function is linear in what each component draws on average."""

    def mean(logits, key):
        # So narrow that they are points; numpyro before 0.22 takes no Delta as a component.
        components = dist.Normal(jnp.array([1.0, 4.0]), 1e-7)
        q = dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
        return fv.expectation(q, lambda x: x**2, key=key, num_samples=1)

    value, slope = jax.value_and_grad(mean)(jnp.zeros(2), KEY)
    assert float(value) == pytest.approx(8.5)
    np.testing.assert_allclose(slope, [-3.75, 3.75], rtol=1e-5)


@pytest.mark.parametrize(
    ("q", "f", "message"),
    [
        (3.0, jnp.sin, "q must be a numpyro distribution, got float: call the family"),
        ({"a": [dist.Normal]}, jnp.sin, r"q\['a'\]\[0\] must be a numpyro distribution"),
        (dist.Normal(), 3.0, "function must be callable, got float"),
    ],
)
def test_refuses_what_is_no_distribution_or_function(q, f, message):
    with pytest.raises(TypeError, match=message):
        fv.expectation(q, f, key=KEY)

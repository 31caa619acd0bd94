"""Our samplers against the distributions' own: law, shape, dtype, transforms of JAX, key types."""

import zlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy import stats

import funcvi as fv
from funcvi.joints import is_joint
from funcvi.sampling import pathwise_obstacle, registry
from tests.funcvi.catalogue import NESTINGS, SINGLE

ALL = {**SINGLE, **NESTINGS}
OURS = {k for k, r in registry.RECORDS.items() if r.draw is not None or r.compose is not None}
NUMBER = 4000


def inner_types(d: Any) -> set[type]:
    """The type and those of everything that it is made of."""
    found = {type(d)}
    for value in vars(d).values():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, dist.Distribution):
                found |= inner_types(part)
    return found


def types_of(name: str) -> set[type]:
    """Of a distribution that is traced, so that nothing is compiled while tests are collected."""
    found: set[type] = set()

    def look() -> None:
        d = ALL[name]()
        found.update({Any} if is_joint(d) else inner_types(d))

    jax.eval_shape(look)
    return found


def ours(name: str) -> bool:
    return bool(types_of(name) & OURS)


# The first cannot be drawn without another package, the second are likelihoods.
NAMES = [
    n for n in ALL if ours(n) and not n.startswith("GaussianCopulaBeta") and "Censored" not in n
]


def test_every_sampler_is_in_the_catalogue() -> None:
    seen = set().union(*(types_of(name) for name in NAMES))
    assert seen >= OURS, OURS - seen


def projections(x: Any) -> list[np.ndarray]:
    """A few functions of each draw (draws, ...), products of neighbours among them."""
    flat = np.asarray(x, float).reshape(len(x), -1)[:, :12]
    direction = np.cos(1.0 + 2.0 * np.arange(flat.shape[1]))
    found = [flat @ direction, flat[:, 0], flat[:, -1]]
    if flat.shape[1] > 1:
        found += [flat[:, 0] * flat[:, 1], (flat * direction[::-1]) @ direction]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_law_is_that_of_the_distributions_own_sampler(name: str) -> None:
    d = ALL[name]()
    key, other = jax.random.split(jax.random.key(zlib.crc32(name.encode())))
    mine = jax.jit(lambda key: fv.sample(d, key, (NUMBER,)))(key)
    theirs = d.sample(other, (NUMBER,))
    if isinstance(d, dist.TruncatedPolyaGamma):  # numpyro swaps its batch and sample axes
        theirs = jnp.swapaxes(theirs, 0, 1)
    assert mine.shape == theirs.shape
    assert jnp.issubdtype(mine.dtype, jnp.floating) == jnp.issubdtype(theirs.dtype, jnp.floating)
    for a, b in zip(projections(mine), projections(theirs), strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-4, name


@pytest.mark.few(4)
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_vmap(name: str) -> None:
    d, key = ALL[name](), jax.random.key(1)

    def draw(key: Any) -> Any:
        return fv.sample(d, key, (3, 2))

    assert jax.eval_shape(draw, key).shape == d.shape((3, 2))
    keys = jax.random.split(key, 5)
    assert jax.eval_shape(jax.vmap(draw), keys).shape == (5, *d.shape((3, 2)))
    if name != "HurdleNegativeBinomial2":  # which numpyro cannot rebuild
        rebuilt = jax.tree.map(jnp.asarray, d)  # as stop_gradient does, or an argument of jit
        drawn = jax.eval_shape(lambda key: fv.sample(rebuilt, key, (3, 2)), key)
        assert drawn.shape == d.shape((3, 2))
    expanded = d.expand((4, *d.batch_shape))
    drawn = jax.eval_shape(lambda key: fv.sample(expanded, key, (3,)), key)
    assert drawn.shape == expanded.shape((3,))


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "name",
    ["Normal", "Gamma", "Beta", "StudentT", "Dirichlet", "LKJCholesky", "Wishart/rate_matrix"],
)
def test_compiled_is_as_written_and_vmap_is_a_loop(name: str) -> None:
    d, key = ALL[name](), jax.random.key(1)
    compiled = jax.jit(lambda key: fv.sample(d, key, (3,)))
    np.testing.assert_allclose(compiled(key), fv.sample(d, key, (3,)), rtol=1e-4, atol=1e-5)
    keys = jax.random.split(key, 2)
    each = jnp.stack([compiled(k) for k in keys])
    np.testing.assert_allclose(jax.vmap(compiled)(keys), each, rtol=1e-4, atol=1e-5)


@pytest.mark.few(4)
@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize(
    "d",
    [dist.Normal(1.0, 2.0), dist.Gamma(0.4, 2.0), dist.StudentT(3.0), dist.Dirichlet(jnp.ones(3))],
)
def test_other_keys(d: Any, implementation: str) -> None:
    key = jax.random.key(0, impl=implementation)
    x = fv.sample(d, key, (20_000,))
    assert abs(float((x - d.mean).mean())) < 5 * float(jnp.sqrt(jnp.max(d.variance))) / 20_000**0.5
    assert jax.jit(lambda key: fv.sample(d, key, (3,)))(key).shape == d.shape((3,))


def test_scan_and_gradients_inside_it() -> None:
    def loss(a: Any) -> Any:
        def body(total: Any, key: Any) -> Any:
            return total + fv.sample(dist.Gamma(a, 1.0), key, (200,)).mean(), None

        return jax.lax.scan(body, 0.0, jax.random.split(jax.random.key(0), 50))[0] / 50

    value, slope = jax.jit(jax.value_and_grad(loss))(2.0)
    assert value == pytest.approx(2.0, abs=0.06)
    assert slope == pytest.approx(1.0, abs=0.02)


def test_every_class_of_numpyro_has_a_record() -> None:
    """A new one must be judged before its gradients are used."""
    classes = {
        k for k in vars(dist).values() if isinstance(k, type) and issubclass(k, dist.Distribution)
    }
    missing = {k.__name__ for k in classes - {dist.Distribution} - registry.RECORDS.keys()}
    assert not missing
    for make in ALL.values():
        if not is_joint(d := make()):
            assert "is not known" not in (pathwise_obstacle(d) or "")


class Shifted(dist.Normal):
    """A sampler of its own, of which nothing is known."""

    def sample(self, key: Any, sample_shape: Any = ()) -> Any:
        return jnp.full(sample_shape + self.batch_shape, 7.0)


class Declared(Shifted):
    """Its author says that it is right."""

    reparametrized_params: ClassVar[list[str]] = ["loc", "scale"]


class Named(dist.MixtureSameFamily):
    """Nothing is its own but the name: numpyro's draws of it would not move with the weights."""


def test_a_class_from_elsewhere() -> None:
    assert fv.sample(Shifted(), jax.random.key(0), (2,)).tolist() == [7.0, 7.0]
    refusal = pathwise_obstacle(Shifted()) or ""
    assert "whether draws of Shifted move with its parameters is not known" in refusal
    assert "reparametrized_params" in refusal
    assert "sampling_record" in refusal
    assert pathwise_obstacle(Declared()) is None

    def draw(w: Any, kind: Any) -> Any:
        weights = dist.Categorical(probs=jnp.stack([w, 1 - w]))
        d = kind(weights, dist.Normal(jnp.array([0.0, 1.0]), 1.0))
        return fv.sample(d, jax.random.key(0))

    assert jax.grad(draw)(0.3, Named) == jax.grad(draw)(0.3, dist.MixtureSameFamily) != 0
    mixture = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.ones(2) / 2), Declared(jnp.zeros(2), 1.0)
    )
    assert "no derivative of its cdf is known" in (pathwise_obstacle(mixture) or "")


BAD: dict[str, Any] = {
    "Gamma": lambda c: dist.Gamma(c, 1.0),
    "InverseGamma": lambda c: dist.InverseGamma(c, 1.0),
    "Chi2": dist.Chi2,
    "Beta": lambda c: dist.Beta(c, 2.0),
    "StudentT": dist.StudentT,
    "GammaPoisson": lambda c: dist.GammaPoisson(c, 1.0),
}


@pytest.mark.parametrize("bad", [-1.0, np.nan])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_concentration_is_nan_alone(name: str, bad: float) -> None:
    def draw(c: Any) -> Any:
        d = BAD[name](c)
        return fv.sample(d, jax.random.key(0), (5,))

    x = jax.jit(draw)(jnp.array([2.0, bad, 3.0]))  # inside jit, where numpyro cannot validate
    good = draw(jnp.array([2.0, 2.5, 3.0]))
    if jnp.issubdtype(x.dtype, jnp.floating):
        assert np.isnan(x[:, 1]).all()
    np.testing.assert_allclose(x[:, ::2], good[:, ::2], rtol=1e-5)


def test_a_bad_row_of_a_dirichlet() -> None:
    x = jax.jit(lambda c: fv.sample(dist.Dirichlet(c), jax.random.key(0)))(
        jnp.array([[1.0, 2.0], [1.0, -1.0], [3.0, 2.0]])
    )
    np.testing.assert_array_equal(np.isnan(x).any(-1), [False, True, False])


def test_tiny_degrees_of_freedom_do_not_underflow() -> None:
    x = fv.sample(dist.StudentT(0.05), jax.random.key(0), (100_000,))
    # log |t| reaches far beyond where the chi2 below it is zero in float32.
    assert np.isfinite(x).all()
    assert np.abs(x).max() > 1e25
    # P(|t| > x) goes as x**-0.05.
    beyond = [(np.abs(x) > size).mean() for size in (1e8, 1e20)]
    assert beyond[1] / beyond[0] == pytest.approx(1e12**-0.05, rel=0.05)


@pytest.mark.parametrize("family", [dist.StudentT, lambda a: dist.InverseGamma(a, 1.0)])
def test_what_overflows_stays_finite_and_so_does_its_gradient(family: Any) -> None:
    def total(a: Any) -> Any:
        return jnp.tanh(fv.sample(family(a), jax.random.key(0), (10_000,))).sum()

    assert np.isfinite(fv.sample(family(0.01), jax.random.key(0), (10_000,))).all()
    assert np.isfinite(jax.grad(total)(0.01))


def test_extreme_betas_and_dirichlets_stay_inside() -> None:
    for c in (1e-6, 1e-3, 1e8):
        x = fv.sample(dist.Beta(c, c), jax.random.key(0), (1000,))
        assert ((x > 0) & (x < 1)).all()
        y = fv.sample(dist.Dirichlet(jnp.full(3, c)), jax.random.key(0), (1000,))
        assert (y > 0).all()
        np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


@pytest.mark.few(1)
@pytest.mark.parametrize("start", [[0.2, 1e5, 1.0], [1e-5, 1e8, 3.0]])
def test_dirichlet_inference_ends(start: list[float]) -> None:
    """The gradient that hangs elsewhere (jax issue 21352)."""
    target = dist.Dirichlet(jnp.array([2.0, 0.5, 7.0]))
    params, q = fv.unconstrain(dist.Dirichlet(jnp.array(start)))

    def loss(params: Any, key: Any) -> Any:
        return fv.kl(q(params), target, key=key, num_samples=100, estimator="pathwise")

    fit = fv.fit(loss, params, optax.adam(0.1), key=jax.random.key(0), num_steps=1500)
    assert np.isfinite(fit.losses).all()
    if min(start) > 0.1:  # below, most of a coordinate's draws underflow in float32
        found = q(fit.params).concentration
        np.testing.assert_allclose(found, target.concentration, rtol=0.2)

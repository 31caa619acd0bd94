"""Support is a law for every dtype: draws lie strictly inside, or the dtype is refused by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

import funcvi as fv
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.gamma import log_standard_gamma, standard_gamma
from funcvi.sampling.gradients import pathwise_obstacle
from funcvi.sampling.scored import sample_and_log_prob
from tests.funcvi.catalogue import CATALOGUE, REPRESENTATIVES

KEY = jax.random.key(3)
HALVES = [jnp.bfloat16, jnp.float16]
DTYPES = [*HALVES, jnp.float32, jnp.float64]

#: What cannot be drawn, in any dtype.
NO_DRAWS = ("ImproperUniform", "GaussianCopulaBeta", "HurdleNegativeBinomial2", "joint")
#: What is refused in half precision, in whatever parameterisation: it curves, or is made of parts
#: with different ends.
REFUSED = {"Dirichlet", "InverseWishart", "InverseWishartCholesky", "LKJ", "LKJCholesky"}
REFUSED |= {"ProjectedNormal", "Wishart", "WishartCholesky", "MixtureGeneral/support"}

#: Where the edges are met: mass near them, heavy tails, and intervals that hold few numbers.
EXTREME = {
    "Beta, both ends": lambda a: dist.Beta(a(0.2), a(0.2)),
    "Beta, near one": lambda a: dist.Beta(a(50.0), a(0.5)),
    "Uniform": lambda a: dist.Uniform(a(0.0), a(1.0)),
    "Uniform, far": lambda a: dist.Uniform(a(1024.0), a(1040.0)),
    "Uniform, negative": lambda a: dist.Uniform(a(-1.0), a(0.0)),
    "Kumaraswamy": lambda a: dist.Kumaraswamy(a(0.3), a(0.3)),
    "Gamma": lambda a: dist.Gamma(a(0.02), a(1.0)),
    "Chi2": lambda a: dist.Chi2(a(0.1)),
    "InverseGamma": lambda a: dist.InverseGamma(a(0.2), a(1.0)),
    "StudentT": lambda a: dist.StudentT(a(0.3), a(0.0), a(1.0)),
    "Cauchy": lambda a: dist.Cauchy(a(0.0), a(10.0)),
    "HalfCauchy": lambda a: dist.HalfCauchy(a(10.0)),
    "Weibull": lambda a: dist.Weibull(a(1.0), a(0.2)),
    "Levy": lambda a: dist.Levy(a(64.0), a(1e-3)),
    "LogNormal": lambda a: dist.LogNormal(a(0.0), a(8.0)),
    "LogUniform": lambda a: dist.LogUniform(a(0.4), a(3.2)),
    "Pareto": lambda a: dist.Pareto(a(0.7), a(5000.0)),
    "TruncatedNormal": lambda a: dist.TruncatedNormal(a(0.0), a(1.0), low=a(5.0), high=a(6.0)),
    "TruncatedNormal, far": lambda a: dist.TruncatedNormal(a(64.0), a(1.0), low=a(64.0)),
    "TruncatedCauchy": lambda a: dist.TruncatedCauchy(a(0.0), a(9.0), low=a(-0.5)),
    "LowerTruncatedPowerLaw": lambda a: dist.LowerTruncatedPowerLaw(a(-5000.0), a(0.6)),
    "DoublyTruncatedPowerLaw": lambda a: dist.DoublyTruncatedPowerLaw(a(5.0), a(0.6), a(3.2)),
    "VonMises": lambda a: dist.VonMises(a(3.1), a(50.0)),
    "RelaxedBernoulli": lambda a: dist.RelaxedBernoulliLogits(a(0.2), a(2.0)),
    "sigmoid": lambda a: dist.TransformedDistribution(
        dist.Normal(a(0.0), a(30.0)), nt.SigmoidTransform()
    ),
}


def converted(d: Any, dtype: Any) -> Any:
    """With parameters of another width, as ``jax.tree.map`` makes them."""
    return jax.tree.map(
        lambda x: (
            jnp.asarray(x, dtype)
            if jnp.issubdtype(jnp.result_type(x), jnp.floating) and hasattr(x, "dtype")
            else x
        ),
        d,
    )


def check(d: Any, num_samples: int, is_eager: bool) -> None:
    """Dtype, finiteness, strictly inside, finite gradients; eager as jitted where it is asked."""
    is_graded = pathwise_obstacle(d) is None
    x, slopes = jax.jit(drawn, static_argnums=(1, 2))(d, num_samples, is_graded)
    wide = np.asarray(x, np.float64)
    assert np.isfinite(wide).all()
    if d.support is not None and d.is_discrete:  # numpyro loses that of Levy in a pytree
        assert x.dtype in (jnp.int32, jnp.int64, jnp.float32, jnp.float64)
        return
    assert x.dtype == own_dtype(d)
    low, high = ends(d)
    assert (wide > low).all()
    assert (wide < high).all()
    for slope in jax.tree.leaves(slopes):
        if slope.dtype != jax.dtypes.float0:
            assert np.isfinite(np.asarray(slope, np.float64)).all()
    if is_eager:
        eager = fv.sample(d, KEY, (num_samples,))
        assert eager.dtype == x.dtype
        # A tail's last digits, or a rounding, may depend on what is compiled together.
        rtol = max(5e-3, 2 * float(jnp.finfo(x.dtype).eps))
        np.testing.assert_allclose(wide, np.asarray(eager, np.float64), rtol=rtol, atol=1e-4)
        assert (np.asarray(eager, np.float64) > low).all()
        assert (np.asarray(eager, np.float64) < high).all()


def drawn(d: Any, num_samples: int, is_graded: bool) -> Any:
    """Draws, and the gradient of a function of them."""
    x = fv.sample(d, KEY, (num_samples,))
    return x, jax.grad(total, allow_int=True)(d) if is_graded else None


def total(d: Any) -> Any:
    """Of a bounded function, so that a heavy tail's gradient is finite where its draws are."""
    x = fv.sample(d, KEY, (100,)).astype(jnp.float32)
    return jnp.sum(jnp.tanh(x / 8))


def ends(d: Any) -> Any:
    """numpyro's bounds, in float64; a hurdle's zeros are inside."""
    support = d.support if d.support is not None else constraints.greater_than(d.loc)
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    low, high = (getattr(support, f"{n}_bound", None) for n in ("lower", "upper"))
    is_closed = "nonnegative" in type(support).__name__.lower()
    low = -np.inf if low is None else -1e-30 if is_closed else np.asarray(low, np.float64)
    return low, np.inf if high is None else np.asarray(high, np.float64)


CONTINUOUS = [n for n in CATALOGUE if not n.startswith((*NO_DRAWS, "Unit"))]


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_lie_inside_or_the_dtype_is_refused(name: str, dtype: Any) -> None:
    with jax.enable_x64(dtype == jnp.float64):
        d = converted(CATALOGUE[name](), dtype)
        is_refused = name in REFUSED or name.split("/")[0] in REFUSED
        if is_refused and own_dtype(d) in HALVES:
            for run in (fv.sample, jax.jit(fv.sample, static_argnums=2)):
                with pytest.raises(TypeError, match=f"is not drawn in {jnp.dtype(dtype).name}"):
                    run(d, KEY, (3,))
        else:
            check(d, 10_000, is_eager=name in REPRESENTATIVES)


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", EXTREME)
def test_draws_at_the_edges_lie_inside(name: str, dtype: Any) -> None:
    with jax.enable_x64(dtype == jnp.float64):
        check(EXTREME[name](lambda x: jnp.asarray(x, dtype)), 100_000, is_eager=True)


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", HALVES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", EXTREME)
def test_draws_and_gradients_are_those_of_float32_rounded(name: str, dtype: Any) -> None:
    narrow = EXTREME[name](lambda x: jnp.asarray(x, dtype))
    wide = converted(narrow, jnp.float32)
    info = jnp.finfo(dtype)
    x, exact = (np.asarray(fv.sample(d, KEY, (10_000,)), np.float64) for d in (narrow, wide))
    kept = (np.abs(exact) < float(info.max)) & (np.abs(exact) > float(info.tiny))
    # Half a step by rounding, another away from an end.
    np.testing.assert_allclose(x[kept], exact[kept], rtol=1.01 * float(info.eps))
    if pathwise_obstacle(wide) is None and name != "StudentT":
        slopes = (jax.tree.leaves(jax.grad(total, allow_int=True)(d)) for d in (narrow, wide))
        for mine, theirs in zip(*slopes, strict=True):
            if mine.dtype == dtype:
                theirs = np.asarray(theirs, np.float64)
                off = np.abs(np.asarray(mine, np.float64) - theirs)
                assert (off <= 0.05 * np.abs(theirs) + 1e-3).all()


@pytest.mark.parametrize("dtype", HALVES, ids=lambda t: t.__name__)
def test_what_is_made_of_bounded_laws_stays_inside(dtype: Any) -> None:
    a = lambda x: jnp.asarray(x, dtype)  # noqa: E731
    base = dist.Beta(a(0.2), a(0.2))
    shifted = dist.TransformedDistribution(base, nt.AffineTransform(a(2.0), a(-3.0)))
    powers = dist.TransformedDistribution(base, [nt.ExpTransform(), nt.AffineTransform(0.0, 2.0)])
    mixed = dist.MixtureSameFamily(
        dist.Categorical(logits=a([0.25, 0.75])), dist.Beta(a([0.2, 0.3]), a(0.2))
    )
    batch = base.expand((3, 2)).to_event(1)
    for d, low, high in (
        (shifted, -1, 2),
        (powers, 2, 2 * np.e),
        (mixed, 0, 1),
        (batch, 0, 1),
    ):
        x = np.asarray(fv.sample(d, KEY, (20_000,)), np.float64)
        assert low < x.min() < x.max() < high
    x, log_q = sample_and_log_prob(shifted, KEY, (20_000,))
    assert x.dtype == log_q.dtype == dtype
    assert np.isfinite(np.asarray(log_q, np.float64)).all()
    np.testing.assert_array_equal(x, fv.sample(shifted, KEY, (20_000,)))


def test_an_atom_at_zero_stays_one() -> None:
    """What is beside it is not drawn onto it; numpyro 0.21 has no hurdle to ask."""
    a = jnp.bfloat16
    hurdle = getattr(dist, "HurdleProbs", None)
    if hurdle is not None:
        x = fv.sample(hurdle(dist.Gamma(a(0.25), a(1.0)), a(0.25)), KEY, (20_000,))
        zeros = (np.asarray(x, np.float64) == 0).mean()
        assert zeros == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 20_000))


@pytest.mark.parametrize("dtype", HALVES, ids=lambda t: t.__name__)
def test_counts_are_those_of_float32(dtype: Any) -> None:
    """Counts beyond what the dtype holds: 1000 is no float16 step of two, 100,000 is infinite."""
    a = lambda x: jnp.asarray(x, dtype)  # noqa: E731
    total_count = 100_001
    x = fv.sample(dist.Multinomial(total_count, logits=a([0.2, 0.8])), KEY, (50,))
    np.testing.assert_array_equal(np.asarray(x).sum(-1), total_count)
    x = np.asarray(fv.sample(dist.Geometric(probs=a(1e-3)), KEY, (5000,)), np.float64)
    mean = 1 / float(a(1e-3)) - 1
    assert x.mean() == pytest.approx(mean, abs=4 * (mean + 1) / np.sqrt(5000))
    assert (x % 2 == 1).any()
    assert (x == np.round(x)).all()
    for d, mean in ((dist.Poisson(a(32768.0)), 32768), (dist.Binomial(100_000, a(0.75)), 75_000)):
        x = np.asarray(fv.sample(d, KEY, (2000,)), np.float64)
        assert x.mean() == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize("dtype", HALVES, ids=lambda t: t.__name__)
def test_an_interval_without_a_number_inside_gives_nan(dtype: Any) -> None:
    one = jnp.asarray(1.0, dtype)
    d = dist.Uniform(one, jnp.nextafter(one, 2 * one))
    assert np.isnan(np.asarray(fv.sample(d, KEY, (5,)), np.float64)).all()


@pytest.mark.parametrize("dtype", HALVES, ids=lambda t: t.__name__)
def test_standard_gamma_is_positive_and_its_log_finite(dtype: Any) -> None:
    small = jnp.asarray(1e-3, dtype)
    x = standard_gamma(KEY, small, (10_000,))
    assert x.dtype == dtype
    assert (np.asarray(x, np.float64) > 0).all()
    logs = log_standard_gamma(KEY, jnp.asarray(1e-6, dtype), (10_000,))
    assert logs.dtype == dtype
    assert np.isfinite(np.asarray(logs, np.float64)).all()


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: d.to_event(1), lambda d: d.expand([2, 3])])
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_a_delta_is_drawn_in_the_dtype_of_its_value(dtype, wrap):
    d = wrap(dist.Delta(jnp.ones(3, dtype)))  # numpyro's log_density of it is float32
    assert fv.sample(d, KEY, (2,)).dtype == dtype
    assert jax.vmap(lambda key: fv.sample(d, key))(jax.random.split(KEY, 2)).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_what_has_no_entries_has_a_dtype(dtype: Any) -> None:
    with jax.enable_x64(True):
        draws = fv.sample(dist.Unit(jnp.zeros(2, dtype)), KEY, (3,))
        assert draws.dtype == dtype
        assert draws.shape == (3, 2, 0)


#: Of arguments of one dtype and shape alone.
OF_ARGUMENTS = [
    *("Cauchy", "Chi2", "Exponential", "Gamma", "Gumbel", "HalfCauchy", "HalfNormal"),
    *("InverseGamma", "Laplace", "LogNormal", "Logistic", "Normal", "SoftLaplace", "StudentT"),
    *("Uniform", "Weibull"),
]


@pytest.mark.few(6)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", OF_ARGUMENTS)
def test_constants_of_numpyros_own_widen_nothing(name: str, dtype: Any) -> None:
    """In a batch, numpyro writes its zeros as numpy's float64."""
    kind = getattr(dist, name)
    for is_wide in {dtype == jnp.float64, True}:
        with jax.enable_x64(is_wide):
            number = {"df": 3.0, "low": 0.0, "high": 2.0}
            d = kind(**{a: jnp.full(2, number.get(a, 1.0), dtype) for a in kind.arg_constraints})
            for one in (d, d.to_event(1)):
                assert fv.sample(one, KEY, (3,)).dtype == dtype
                assert jax.jit(fv.sample)(one, KEY).dtype == dtype

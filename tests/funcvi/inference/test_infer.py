"""The ladder stops at the rung that suffices, and its report tells the truth."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import funcvi as fv
from funcvi.inference.empirical import resampled
from funcvi.mixing import mixing

KEY = jax.random.key(0)


def test_a_normal_posterior_is_one_with_a_density() -> None:
    def model(y: Any) -> None:
        m = numpyro.sample("m", dist.Normal(0.0, 10.0))
        numpyro.sample("y", dist.Normal(m, 2.0), obs=y)

    y = jnp.array([3.0, 5.0, 4.0])
    posterior, report = fv.infer(fv.target(model, y), key=KEY)
    exact = stats.norm(12 / (3 + 0.04), 2 / np.sqrt(3 + 0.04))
    assert (report.verdict, report.rung) == ("reliable", "normal")
    assert isinstance(posterior, fv.Posterior)
    draws = np.asarray(fv.sample(posterior, KEY, (20_000,))["m"])
    assert abs(draws.mean() - exact.mean()) < 0.05 * exact.std()
    assert abs(np.log(draws.std() / exact.std())) < 0.05
    np.testing.assert_allclose(posterior.log_prob({"m": 4.0}), exact.logpdf(4.0), atol=0.05)
    evidence = stats.multivariate_normal(np.zeros(3), 4 * np.eye(3) + 100).logpdf(y)
    assert abs(report.elbo - evidence) < 0.05
    assert "nats" in str(report)


def skewed() -> fv.Target:
    law = dist.Gamma(0.7, 1.0)
    return fv.target(lambda v: law.log_prob(v["x"]), supports={"x": constraints.positive})


def test_a_skewed_posterior_is_corrected() -> None:
    posterior, report = fv.infer(skewed(), key=KEY)
    assert report.verdict == "reliable"
    assert report.rung != "normal"
    x = np.asarray(posterior.values["x"])
    assert abs(x.mean() - 0.7) < 0.1 * np.sqrt(0.7)
    assert abs(np.log(x.std() / np.sqrt(0.7))) < 0.1
    picked = fv.sample(posterior, KEY, (50, 3))["x"]
    assert picked.shape == (50, 3)
    assert np.isin(picked, x).all()
    with pytest.raises(TypeError, match="a set of draws, which has no density"):
        posterior.log_prob({"x": 1.0})


def hierarchy(y: Any) -> None:
    """Centred, with little data: the mode has no mass."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("groups", len(y)):
        x = numpyro.sample("x", dist.Normal(0.0, scale))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def test_a_hierarchy_has_its_marginal_by_quadrature() -> None:
    y = jnp.array([0.5, -1.2, 0.8, 2.0, 0.1, -0.4])
    posterior, report = fv.infer(fv.target(hierarchy, y), key=KEY)
    assert report.rung == "chains"
    scale = np.linspace(1e-4, 6, 4000)
    density = stats.halfnorm.pdf(scale) * np.prod(
        stats.norm.pdf(np.asarray(y)[:, None], 0, np.sqrt(1 + scale**2)), axis=0
    )
    density /= density.sum()
    mean = density @ scale
    sd = np.sqrt(density @ (scale - mean) ** 2)
    found = np.asarray(posterior.values["scale"])
    within = abs(found.mean() - mean) < 0.15 * sd and abs(np.log(found.std() / sd)) < 0.15
    assert within or report.verdict != "reliable"
    assert abs(found.mean() - mean) < 0.25 * sd


def two_modes() -> fv.Target:
    q = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Normal(jnp.array([-30.0, 30.0]), 1.0)
    )
    return fv.target(lambda v: q.log_prob(v["x"]), supports={"x": constraints.real})


@pytest.mark.parametrize("method", ["auto", "variational"])
def test_modes_far_apart_are_never_reliable(method: str) -> None:
    _, report = fv.infer(two_modes(), key=KEY, method=method)
    assert report.verdict != "reliable"
    assert report.careful == ("x",)


def test_no_chains_where_none_are_wanted() -> None:
    def funnel() -> None:
        log_scale = numpyro.sample("log_scale", dist.Normal(0.0, 3.0))
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(log_scale)).expand((9,)).to_event(1))

    target = fv.target(funnel)
    for options in ({"method": "variational"}, {"budget": 1e-9}):
        posterior, report = fv.infer(target, key=KEY, **options)
        assert isinstance(posterior, fv.Posterior)
        assert report.rung == "normal"
        assert report.verdict == "failed"
        assert report.careful == ("log_scale", "x")
        assert "sites: log_scale, x" in str(report)
        assert not report.effective_size > 4000  # of 40,000 draws whose weights are poor


IMPROPER = {
    "flat": ((), lambda x: 0.0 * x),
    "flat on one side": ((), lambda x: -jnp.logaddexp(0.0, -x)),
    "a ridge": ((2,), lambda x: -0.5 * x.sum() ** 2),
    "a logarithm": ((), lambda x: -0.4 * jnp.log1p(x**2)),
    "one over the distance": ((), lambda x: -jnp.log1p(jnp.abs(x))),
}


@pytest.mark.parametrize("name", IMPROPER)
def test_an_improper_posterior_is_called_failed(name: str) -> None:
    """Chains agreed on the flat one."""
    shape, log_density = IMPROPER[name]
    target = fv.target(lambda v: log_density(v["x"]), supports={"x": (constraints.real, shape)})
    _, report = fv.infer(target, key=KEY)
    assert report.verdict == "failed"
    assert "does not fall far out along x" in report.message


def test_heavy_tails_are_proper() -> None:
    law = dist.StudentT(2.0, 0.0, 1.0)
    target = fv.target(lambda v: law.log_prob(v["x"]), supports={"x": constraints.real})
    _, report = fv.infer(target, key=KEY)
    assert report.verdict != "failed"


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"method must be one of \('auto', 'variational'\)"):
        fv.infer(skewed(), key=KEY, method="vi")
    with pytest.raises(TypeError, match="expected a target, got function"):
        fv.infer(hierarchy, key=KEY)

    def random(y: Any) -> None:
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 4, subsample_size=2) as rows:
            numpyro.sample("y", dist.Normal(m, 1.0), obs=y[rows])

    with pytest.raises(ValueError, match=r"fv\.infer needs the log density itself"):
        fv.infer(fv.target(random, jnp.zeros(4)), key=KEY)


def test_r_hat_and_effective_sizes_are_those_of_arviz() -> None:
    arviz = pytest.importorskip("arviz")
    rng = np.random.default_rng(0)
    slow = np.zeros((4, 500))
    for i in range(1, 500):
        slow[:, i] = 0.9 * slow[:, i - 1] + rng.normal(size=4)
    chains = np.stack([slow, rng.standard_t(2, (4, 500)), slow + np.arange(4)[:, None]], axis=-1)
    found = mixing(chains)
    for i in range(3):
        np.testing.assert_allclose(found.r_hat[i], arviz.rhat(chains[..., i]), rtol=5e-3)
    bulk = float(arviz.ess(chains[..., 0], method="bulk"))
    assert 0.5 * bulk < found.effective[0] < 1.5 * bulk


def test_resampled_draws_follow_their_weights() -> None:
    draws = jax.random.normal(KEY, (20_000, 1))
    log_weights = jnp.asarray(stats.norm(0.5, 1).logpdf(draws) - stats.norm.logpdf(draws))[:, 0]
    found = resampled(draws, log_weights, KEY, 10_000)
    assert abs(float(found.mean()) - 0.5) < 0.05
    assert abs(float(found.std()) - 1) < 0.05


PROGRESS = {
    "normal": (
        lambda: fv.target(lambda v: -0.5 * v["x"] ** 2, supports={"x": constraints.real}),
        r"normal: 8 climbs, ELBO 0\.9 ± \S+, k-hat \S+: weights change next to nothing "
        r"→ reliable\n",
    ),
    "skewed": (
        skewed,
        r"normal: 8 climbs, .*: (weights correct it → importance\nimportance: \d+ effective draws|"
        r"weights cannot correct it → chains\n(chains: .* → more draws\n)*chains: 4 of \d+ draws, "
        r"R-hat \S+ \d+ effective draws) → reliable\n",
    ),
    "two modes": (
        two_modes,
        r"normal: 8 climbs, .* → chains\n(chains: .* → more draws\n)*chains: .* → failed\n",
    ),
}


@pytest.mark.parametrize("name", PROGRESS)
def test_progress_is_a_line_for_each_rung(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, lines = PROGRESS[name]
    target = make()
    _, told = fv.infer(target, key=KEY, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(lines, shown.err)
    _, silent = fv.infer(target, key=KEY)
    assert capsys.readouterr() == ("", "")
    assert (silent.verdict, silent.k_hat) == (told.verdict, told.k_hat)

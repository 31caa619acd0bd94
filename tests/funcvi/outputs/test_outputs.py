"""What a posterior is read as, against numpy and ArviZ."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import funcvi as fv

KEY = jax.random.key(0)
X = jnp.linspace(-1.0, 1.0, 30)
Y = 1.0 + 2.0 * X + 0.1 * jnp.sin(40.0 * X)


def line(x, y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 3.0))
    b = numpyro.sample("b", dist.Normal(0.0, 3.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    mean = numpyro.deterministic("mean", a + b * x)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def groups(y):
    with numpyro.plate("school", 4):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0).expand([4, 2]).to_event(1))
        numpyro.sample("y", dist.Normal(theta[..., 0], 1.0), obs=y)


def normal_posterior():
    return fv.batch_and_match(fv.target(line, X, Y), key=KEY)


def posterior_of_chains():
    rng = np.random.default_rng(0)
    vectors = jnp.asarray(rng.normal(size=(4 * 500, 3)), jnp.float32)
    return fv.EmpiricalPosterior(fv.target(line, X, Y), vectors, num_chains=4)


POSTERIORS = {"normal": normal_posterior, "chains": posterior_of_chains}


@pytest.fixture(scope="module", params=POSTERIORS)
def posterior(request):
    return POSTERIORS[request.param]()


def test_a_summary_is_that_of_the_draws(posterior):
    summary = posterior.summary(key=jax.random.key(3), num_samples=4000)
    drawn = posterior.by_chain(jax.random.key(3), 4000)
    assert set(summary) == {"a", "b", "scale", *(f"mean[{i}]" for i in range(30))}
    b, mean = np.asarray(drawn["b"]), np.asarray(drawn["mean"])[..., 7]
    for row, draws in ((summary["b"], b), (summary["mean[7]"], mean)):
        np.testing.assert_allclose(row.mean, draws.mean(), rtol=1e-5)
        np.testing.assert_allclose(row.sd, draws.std(ddof=1), rtol=1e-5)
        np.testing.assert_allclose(
            [row.low, row.median, row.high], np.quantile(draws, [0.05, 0.5, 0.95]), rtol=1e-5
        )
    lines = str(summary).splitlines()
    assert len(lines) == 1 + len(summary)
    assert ("R-hat" in lines[0]) == (posterior.by_chain(KEY, 8)["a"].shape[0] > 1)


def test_r_hat_and_effective_sizes_are_those_of_arviz():
    arviz = pytest.importorskip("arviz")
    posterior = posterior_of_chains()
    summary = posterior.summary()
    a = np.asarray(posterior.by_chain(KEY, 1)["a"])
    np.testing.assert_allclose(summary["a"].r_hat, float(arviz.rhat(a)), rtol=1e-3)
    sizes = [float(arviz.ess(a, method=m)) for m in ("bulk", "tail")]
    np.testing.assert_allclose(summary["a"].effective_size, min(sizes), rtol=0.05)


def test_predictions_at_new_data(posterior):
    new = jnp.array([0.5, 4.0])
    drawn = posterior.predict(line, new, key=jax.random.key(5), num_samples=2000)
    assert {n: x.shape for n, x in drawn.items()} == {"y": (2000, 2), "mean": (2000, 2)}
    again = posterior.predict(line, new, key=jax.random.key(5), num_samples=2000)
    np.testing.assert_array_equal(drawn["y"], again["y"])


def test_predictions_are_right():
    posterior = normal_posterior()
    new = jnp.array([0.5, 4.0])
    drawn = posterior.predict(line, new, key=jax.random.key(5), num_samples=4000)["y"]
    design = np.stack([np.ones(30), X], 1)
    fitted, _, _, _ = np.linalg.lstsq(design, np.asarray(Y), rcond=None)
    expected = fitted[0] + fitted[1] * np.asarray(new)
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.02)
    # Data that the model is given are drawn anew, not returned.
    seen = posterior.predict(line, X, Y, key=jax.random.key(5), num_samples=50)["y"]
    assert np.std(np.asarray(seen), axis=0).min() > 0.01


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_arviz_gets_all_groups_and_works_with_them(posterior):
    arviz = pytest.importorskip("arviz")
    data = posterior.to_arviz(num_samples=300)
    groups_of = {"posterior", "posterior_predictive", "log_likelihood", "prior"}
    assert set(data.groups()) == groups_of | {"prior_predictive", "observed_data"}
    chains, draws = np.asarray(posterior.by_chain(KEY, 300)["a"]).shape
    assert data.posterior["mean"].shape == (chains, draws, 30)
    assert data.posterior_predictive["y"].shape == (chains, draws, 30)
    assert data.prior["a"].shape == (1, draws)
    np.testing.assert_array_equal(data.observed_data["y"], Y)
    values = {n: np.asarray(data.posterior[n])[0, 11] for n in ("a", "b", "scale")}
    expected = dist.Normal(values["a"] + values["b"] * X, values["scale"]).log_prob(Y)
    np.testing.assert_allclose(data.log_likelihood["y"][0, 11], expected, rtol=1e-4, atol=1e-4)
    assert set(arviz.summary(data, var_names=["a", "b"]).index) == {"a", "b"}


def test_arviz_compares_models():
    arviz = pytest.importorskip("arviz")
    loo = arviz.loo(normal_posterior().to_arviz(groups=["log_likelihood"]))
    assert np.isfinite(loo.elpd_loo)


def test_plates_have_their_names():
    pytest.importorskip("arviz")
    posterior = fv.batch_and_match(fv.target(groups, jnp.arange(4.0)), key=KEY, num_steps=10)
    data = posterior.to_arviz(groups=[])
    assert data.posterior["theta"].dims == ("chain", "draw", "school", "theta_dim_1")
    assert set(data.groups()) == {"posterior"}


def test_a_log_density_has_no_predictions():
    pytest.importorskip("arviz")
    of = fv.target(
        lambda v: dist.Normal(0.0, 1.0).log_prob(v["a"]),
        supports={"a": dist.constraints.real},
    )
    assert fv.batch_and_match(of, key=KEY, num_steps=10).to_arviz().groups() == ["posterior"]


def test_a_figure_has_a_panel_for_each_site(posterior, tmp_path):
    figure = posterior.plot(num_samples=200)
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in shown] == list(posterior.by_chain(KEY, 2))
    figure.savefig(tmp_path / "posterior.png")
    assert len(posterior.plot(sites=["b"], num_samples=200).axes) == 1


def test_factors_are_no_data_and_empty_sites_no_panels():
    pytest.importorskip("arviz")

    def model(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.deterministic("nothing", jnp.zeros((0,)))
        numpyro.factor("reward", -(a**2))
        numpyro.sample("y", dist.Normal(a, 1.0), obs=y)

    posterior = fv.batch_and_match(fv.target(model, jnp.ones(())), key=KEY, num_steps=10)
    data = posterior.to_arviz(num_samples=20)
    for group in ("posterior_predictive", "log_likelihood", "observed_data", "prior_predictive"):
        assert list(data[group].data_vars) == ["y"]
    assert set(posterior.predict(model, 1.0, key=KEY, num_samples=5)) == {"y"}
    assert [panel.get_title() for panel in posterior.plot(num_samples=20).axes] == ["a"]


def test_two_entries_of_one_name_are_refused():
    supports = {"a": (dist.constraints.real, (2,)), "a[0]": dist.constraints.real}
    of = fv.target(lambda v: -(v["a"] ** 2).sum() - v["a[0]"] ** 2, supports=supports)
    guide = fv.mean_field(of)
    with pytest.raises(ValueError, match="two sites have an entry"):
        guide(guide.init(KEY)).summary(num_samples=10)


def test_what_cannot_be_read_is_refused():
    posterior = normal_posterior()
    with pytest.raises(ValueError, match="sites are some of"):
        posterior.plot(sites=["c"])
    with pytest.raises(ValueError, match="groups are some of"):
        posterior.to_arviz(groups=["sample_stats"])
    with pytest.raises(TypeError, match="key"):
        posterior.summary(key=0)
    guide = fv.mean_field(posterior.target)
    batch = guide(jax.vmap(guide.init)(jax.random.split(KEY, 3)))
    with pytest.raises(ValueError, match="batch of posteriors"):
        batch.summary()

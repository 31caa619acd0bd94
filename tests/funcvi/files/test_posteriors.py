"""Posteriors that go to a file and come back, here and in a process of their own."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.files.supports import described, support_of

KEY = jax.random.key(1)
SUPPORTS = {
    "real": constraints.real,
    "positive": constraints.positive,
    "nonnegative": constraints.nonnegative,
    "unit_interval": constraints.unit_interval,
    "interval": constraints.interval(-1.0, 3.0),
    "intervals": constraints.interval(np.array([0.0, 1.0]), np.array([2.0, 5.0])),
    "greater_than": constraints.greater_than(2.0),
    "less_than": constraints.less_than(-2.0),
    "circular": constraints.circular,
    "simplex": constraints.simplex,
    "ordered_vector": constraints.ordered_vector,
    "positive_ordered_vector": constraints.positive_ordered_vector,
    "lower_cholesky": constraints.lower_cholesky,
    "positive_definite": constraints.positive_definite,
    "corr_cholesky": constraints.corr_cholesky,
    "corr_matrix": constraints.corr_matrix,
    "real_vector": constraints.real_vector,
    "independent": constraints.independent(constraints.greater_than(1.0), 1),
}


def model(y):
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("rows", 2):
        theta = numpyro.sample("theta", dist.Uniform(-1.0, 4.0))
    numpyro.deterministic("double", 2 * theta)
    numpyro.sample("y", dist.Normal(theta.sum() * weights[0], scale), obs=y)


def posteriors():
    target = fv.target(model, jnp.array([0.3, 1.2]))
    z = jax.random.normal(KEY, (40, target.size))
    guides = {
        "mean_field": fv.mean_field(target),
        "full_rank": fv.full_rank(target),
        "low_rank": fv.low_rank(target, rank=2),
        "mixture": fv.mixture(target, num_components=2),
        "flow": fv.flow(target, kind="autoregressive", num_layers=2, num_bins=3, width=4),
    }
    guides["laplace"] = fv.laplace(target)
    params = {name: guide.init(KEY) for name, guide in guides.items()}
    return {
        **{name: guide(params[name]) for name, guide in guides.items()},
        "draws": fv.EmpiricalPosterior(target, z, num_chains=2),
    }


@pytest.mark.parametrize(
    "name", ["mean_field", "full_rank", "low_rank", "mixture", "flow", "laplace", "draws"]
)
def test_the_same_key_gives_the_same_draws(name, tmp_path):
    posterior = posteriors()[name]
    fv.save_posterior(tmp_path / "p.safetensors", posterior)
    again = fv.load_posterior(tmp_path / "p.safetensors")
    drawn, expected = (fv.sample(p, KEY, (50,)) for p in (again, posterior))
    kept = set(expected) if name == "draws" else set(posterior.target.shapes)
    assert set(drawn) == kept
    for site in kept:
        np.testing.assert_array_equal(drawn[site], expected[site])
    assert str(again.summary()["scale"]) == str(posterior.summary()["scale"])
    if name != "draws":
        np.testing.assert_array_equal(again.log_prob(expected), posterior.log_prob(expected))
    with pytest.raises(ValueError, match="has no model"):
        again.target.log_density({n: jnp.zeros(s) for n, s in again.target.shapes.items()})


def test_another_process_has_neither_model_nor_data(tmp_path):
    posterior = posteriors()["full_rank"]
    fv.save_posterior(tmp_path / "p.safetensors", posterior)
    code = (
        "import jax, funcvi as fv, sys, json\n"
        "drawn = fv.sample(fv.load_posterior(sys.argv[1]), jax.random.key(1), (3,))\n"
        "print(json.dumps({n: x.tolist() for n, x in drawn.items()}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.safetensors")],
        capture_output=True, text=True, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    expected = fv.sample(posterior, KEY, (3,))
    for site, values in json.loads(done.stdout).items():
        np.testing.assert_array_equal(np.asarray(values, np.float32), expected[site])


@pytest.mark.parametrize("name", SUPPORTS)
def test_supports_come_back(name):
    text = json.loads(json.dumps(described(SUPPORTS[name])))
    again = support_of(text)
    assert type(again) is type(SUPPORTS[name])
    shape = {"intervals": (2,), "independent": (3,)}.get(name, (3,) * again.event_dim)
    bijections = [fv.bijection_for(s) for s in (again, SUPPORTS[name])]
    inverse_shape = bijections[1].inverse_shape(shape)
    u = jnp.linspace(-2.0, 2.0, int(np.prod(inverse_shape))).reshape(inverse_shape)
    np.testing.assert_array_equal(*(b(u) for b in bijections))


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path, found = tmp_path / "p.safetensors", posteriors()
    fv.save_posterior(path, found["draws"])
    before = path.read_bytes()
    path.chmod(0o640)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            fv.save_posterior(path, found["mean_field"])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]
    fv.save_posterior(path, found["mean_field"])
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    target = posteriors()["draws"].target
    flow = fv.guide(target, dist.Normal(jnp.zeros(target.size), 1.0).to_event(1))
    with pytest.raises(TypeError, match="save draws of it"):
        fv.save_posterior(path, flow(flow.init(KEY)))

    def nested():
        top = numpyro.sample("top", dist.Gamma(2.0, 1.0))
        numpyro.sample("below", dist.Uniform(0.0, top))

    guide = fv.mean_field(fv.target(nested))
    with pytest.raises(ValueError, match=r"support of site 'below' depends on \['top'\]"):
        fv.save_posterior(path, guide(guide.init(KEY)))
    assert not path.exists()
    path.write_bytes(b"nothing of that kind")
    with pytest.raises(ValueError, match="is no file of"):
        fv.load_posterior(path)
    with pytest.raises(FileNotFoundError):
        fv.load_posterior(tmp_path / "missing")


def test_float64_is_not_rounded_in_silence(tmp_path):
    path = tmp_path / "p.safetensors"
    with jax.enable_x64(True):
        fv.save_posterior(path, posteriors()["mean_field"])
    with pytest.raises(ValueError, match="jax_enable_x64"):
        fv.load_posterior(path)

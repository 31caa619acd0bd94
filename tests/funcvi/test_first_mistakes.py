"""What a new user gets wrong first, and what is said of it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
TARGET = fv.target(
    lambda v: dist.Normal(0.0, 1.0).log_prob(v["x"]), supports={"x": constraints.real}
)
GUIDE = fv.mean_field(TARGET)


def network():
    def function(params, x):
        return x @ params["w"]

    params = {"w": jnp.ones((2, 1))}
    return params, fv.bayesian(function, params, prior=dist.Normal(0.0, 1.0))


def without_supports(tmp_path):
    fv.target(lambda v: v["x"])


def another_site(tmp_path):
    fv.target(lambda v: v["x"] + v["q"], supports={"x": constraints.real}).start(KEY)


def without_args(tmp_path):
    fv.fit(lambda p, k, x: p["a"] * x, {"a": 1.0}, optax.adam(0.1), key=KEY, num_steps=3)


def draws_diagnosed(tmp_path):
    fv.diagnose(fv.EmpiricalPosterior(TARGET, jnp.zeros((100, 1))), key=KEY)


def a_guide_saved(tmp_path):
    fv.save_posterior(tmp_path / "guide.safetensors", GUIDE)


def a_scale_as_prior(tmp_path):
    fv.bayesian(lambda p, x: x @ p["w"], {"w": jnp.ones((2, 1))}, prior=1.0)


def params_of_the_function(tmp_path):
    params, net = network()
    net(params, np.ones((3, 2), np.float32), key=KEY)


MISTAKES = {
    without_supports: r"the model takes \(v\), and gets 0 argument.*supports=",
    another_site: "reads the site 'q', and supports has \\['x'\\]: name all",
    without_args: r"pass what else it takes, x, by args=",
    draws_diagnosed: "it is draws, without a density to judge; the report of fv.infer",
    a_guide_saved: r"got a Guide: save guide\(fit.params\)",
    a_scale_as_prior: "the prior of 'w' must be a numpyro distribution, got float",
    params_of_the_function: "expected the params of a Bayesian network",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_way_out_is_named(mistake, tmp_path):
    with pytest.raises((TypeError, ValueError), match=f"(?s){MISTAKES[mistake]}"):
        mistake(tmp_path)


def test_a_callback_that_ends_a_fit_at_its_last_step_interrupts_nothing():
    def train(last):
        return fv.fit(
            fv.negative_elbo(GUIDE),
            GUIDE.init(KEY),
            optax.adam(0.1),
            key=KEY,
            num_steps=6000,
            callback=lambda step, loss, params: step >= last,
        )

    assert train(6000).status != "interrupted"
    assert train(1).status == "interrupted"

"""Arguments that functions of every room take, refused in the same words."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
NORMAL = dist.Normal(0.0, 1.0)
START, Q = fv.unconstrain(NORMAL)
GUIDE = fv.mean_field(
    fv.target(lambda z: NORMAL.log_prob(z["x"]), supports={"x": constraints.real})
)
POSTERIOR = GUIDE(GUIDE.init(KEY))
NET = fv.bayesian(lambda p, x: x @ p["weight"], {"weight": jnp.ones(2)}, NORMAL)
INPUTS = jnp.ones((3, 2))


def loss(params, key):
    return params["loc"] ** 2


#: By name, what is done with a key.
WITH_KEY = {
    "fit": lambda key: fv.fit(loss, START, optax.sgd(0.1), key=key, num_steps=2),
    "sample": lambda key: fv.sample(NORMAL, key),
    "sample of a joint": lambda key: fv.sample({"x": NORMAL}, key, (2,)),
    "sample of a posterior": lambda key: fv.sample(POSTERIOR, key),
    "sample_and_log_prob": POSTERIOR.sample_and_log_prob,
    "relaxed_one_hot": lambda key: fv.relaxed_one_hot(dist.Bernoulli(0.3), key, temperature=1.0),
    "kl": lambda key: fv.kl(NORMAL, dist.Laplace(0.0, 1.0), key=key),
    "kl in closed form": lambda key: fv.kl(NORMAL, NORMAL, key=key),
    "expectation": lambda key: fv.expectation(NORMAL, jnp.sin, key=key),
    "importance_weighted_elbo": lambda key: fv.importance_weighted_elbo(
        NORMAL, NORMAL.log_prob, key=key, num_samples=3
    ),
    "negative_elbo": lambda key: fv.negative_elbo(GUIDE)(GUIDE.init(KEY), key),
    "forward_kl": lambda key: fv.forward_kl(GUIDE, num_samples=4)(GUIDE.init(KEY), key),
    "init": GUIDE.init,
    "init of laplace": fv.laplace(GUIDE.target).init,
    "init of low_rank": fv.low_rank(GUIDE.target, rank=1).init,
    "diagnose": lambda key: fv.diagnose(POSTERIOR, key=key),
    "check_gradients": lambda key: fv.check_gradients(loss, START, key=key),
    "a network": lambda key: NET(NET.params, INPUTS, key=key),
    "predict": lambda key: NET.predict(NET.params, INPUTS, key=key, num_samples=2),
}
WRONG = {
    "int": (0, "got int"),
    "floats": (jnp.zeros(2), r"got float32\[2\]"),
    "stack": (jax.random.split(KEY, 3), r"got key<fry>\[3\]; for each of several keys, jax.vmap"),
    "legacy stack": (np.zeros((3, 2), np.uint32), r"got uint32\[3, 2\]; for each of several keys"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", WITH_KEY)
def test_what_is_not_a_key_is_refused_everywhere(name, wrong):
    key, message = WRONG[wrong]
    with pytest.raises(TypeError, match=f"key must be a single key .*{message}"):
        WITH_KEY[name](key)


FIT = fv.fit(loss, START, optax.sgd(0.1), key=KEY, num_steps=2)
WITH_PARAMS = {
    "family": lambda: Q(FIT),
    "joint": lambda: fv.family({"x": NORMAL})(FIT),
    "guide": lambda: GUIDE(FIT),
    "a network": lambda: NET(FIT, INPUTS, key=KEY),
    "predict": lambda: NET.predict(FIT, INPUTS, key=KEY, num_samples=2),
}


@pytest.mark.parametrize("name", WITH_PARAMS)
def test_a_fit_in_place_of_its_params_is_refused(name):
    with pytest.raises(TypeError, match=r"takes params, got a fit: pass fit\.params\."):
        WITH_PARAMS[name]()

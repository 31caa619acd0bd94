"""Everything public works under vmap and jit as in a Python loop, or says here why it need not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
SIZE = 3

#: Names that take or return no arrays of their own, and where each is mapped instead.
ELSEWHERE = {
    "Diagnosis": "a result on the host",
    "EmpiricalPosterior": "returned by infer",
    "Exp": "a transform: mapped with the families that use it",
    "Family": "made by family",
    "Fit": "returned by fit",
    "GradientCheck": "a result on the host",
    "Guide": "made by mean_field and its siblings",
    "Posterior": "returned by a guide",
    "Report": "a result on the host",
    "Softplus": "a transform: mapped with the families that use it",
    "Status": "a word",
    "Target": "made by target",
    "bijection_for": "returns a transform, which is mapped with target",
    "check_gradients": "reports on the host",
    "load_posterior": "reads a file",
    "save_posterior": "writes a file",
    "diagnose": "reports on the host",
    "diagnose_each": "reports on the host",
    "fitting": "a module; its functions are in the table",
    "fixed": "a word of a family",
    "free": "a word of a family",
    "infer": "chooses on the host what it runs next",
    "networks": "a module; its functions are in the table",
    "sample_in_chunks": "a generator of compiled chunks",
    "shared": "a word of a family",
    "tied": "a word of a family",
}

NORMAL_START, NORMAL = fv.unconstrain(dist.Normal(0.0, 1.0))
TARGET = fv.target(
    lambda v: dist.Gamma(3.0, 2.0).log_prob(v["rate"]) + dist.Normal(0.0, 1.0).log_prob(v["x"]),
    supports={"rate": constraints.positive, "x": constraints.real},
)
NUMBERS = jnp.array([0.3, 0.6, 0.9])
KEYS = jax.random.split(KEY, SIZE)


def quadratic(params, key):
    return (params["x"] - jax.random.normal(key)) ** 2


def fitted(learning_rate, key):
    fit = fv.fit(quadratic, {"x": 0.5}, optax.sgd(learning_rate), key=key, num_steps=20)
    return fit.params["x"], fit.losses


def at(guide):
    return lambda key: guide(guide.init(key)).log_prob(
        {"rate": jnp.array(1.2), "x": jnp.array(0.3)}
    )


def matched(key):
    posterior = fv.batch_and_match(TARGET, key=key, num_steps=20, num_samples=8, num_starts=2)
    return posterior.marginals()["x"].loc


def loss_of(make, guide=None, **options):
    guide = guide or fv.mean_field(TARGET)
    loss = make(guide, **options)
    return lambda key: loss(guide.init(KEY), key)


def network(params, x):
    return x @ params["weight"]


def one_update(x):
    optimizer = fv.only_used(optax.sgd(0.1, momentum=0.9))
    params = {"a": x, "b": x}
    updates, _ = optimizer.update(
        params, optimizer.init(params), params, used={"a": x > 0.5, "b": False}
    )
    return updates


BAYESIAN = fv.bayesian(network, {"weight": jnp.ones((2,))}, dist.Normal(0.0, 1.0))
INPUTS = jnp.arange(8.0).reshape(4, 2)

#: By public name: a function of one element, and the batch of arguments it is mapped over.
MAPPED = {
    "family": (lambda x: fv.family(dist.Normal)({"loc": x, "scale": x}).log_prob(0.2), (NUMBERS,)),
    "unconstrain": (lambda x: fv.unconstrain(dist.Gamma(x, 1.0))[0], (NUMBERS,)),
    "sample": (lambda x, key: fv.sample(dist.Gamma(x, 1.0), key, (2,)), (NUMBERS, KEYS)),
    "relaxed_one_hot": (
        lambda x, key: fv.relaxed_one_hot(dist.Bernoulli(x), key, (2,), temperature=0.5),
        (NUMBERS, KEYS),
    ),
    "straight_through_one_hot": (
        lambda x, key: fv.straight_through_one_hot(dist.Bernoulli(x), key, (2,), temperature=0.5),
        (NUMBERS, KEYS),
    ),
    "kl": (
        lambda x, key: fv.kl(dist.Gamma(x, 1.0), dist.LogNormal(0.0, 1.0), key=key, num_samples=4),
        (NUMBERS, KEYS),
    ),
    "expectation": (
        lambda x, key: fv.expectation(dist.Gamma(x, 1.0), jnp.sin, key=key, num_samples=4),
        (NUMBERS, KEYS),
    ),
    "importance_weighted_elbo": (
        lambda x, key: fv.importance_weighted_elbo(
            dist.Normal(x, 1.0), dist.Normal(0.0, 1.0).log_prob, key=key, num_samples=4
        ),
        (NUMBERS, KEYS),
    ),
    "fit": (fitted, (NUMBERS / 10, KEYS)),
    "target": (lambda x: TARGET.log_density({"rate": x, "x": x}), (NUMBERS,)),
    "mean_field": (at(fv.mean_field(TARGET)), (KEYS,)),
    "full_rank": (at(fv.full_rank(TARGET)), (KEYS,)),
    "low_rank": (at(fv.low_rank(TARGET, rank=1)), (KEYS,)),
    "batch_and_match": (matched, (KEYS,)),
    "blocks": (at(fv.blocks(TARGET, {"rate": fv.full_rank, "x": fv.mean_field})), (KEYS,)),
    "mixture": (at(fv.mixture(TARGET, num_components=2)), (KEYS,)),
    "flow": (at(fv.flow(TARGET, num_layers=1, num_bins=3, width=4)), (KEYS,)),
    "laplace": (at(fv.laplace(TARGET)), (KEYS,)),
    "guide": (at(fv.guide(TARGET, dist.Normal(jnp.zeros(2), 1.0).to_event(1))), (KEYS,)),
    "negative_elbo": (loss_of(fv.negative_elbo), (KEYS,)),
    "negative_importance_weighted_elbo": (
        loss_of(fv.negative_importance_weighted_elbo, num_samples=4),
        (KEYS,),
    ),
    "negative_renyi_elbo": (loss_of(fv.negative_renyi_elbo, alpha=0.5, num_samples=4), (KEYS,)),
    "forward_kl": (loss_of(fv.forward_kl, num_samples=4), (KEYS,)),
    "from_moments": (lambda x: fv.from_moments(dist.Gamma, x, x).log_prob(0.7), (NUMBERS,)),
    "bayesian": (lambda key: BAYESIAN(BAYESIAN.params, INPUTS, key=key), (KEYS,)),
    "apply_first": (lambda x: fv.apply_first([jnp.sin, jnp.cos], 1, x), (NUMBERS,)),
    "choose": (lambda x: fv.choose(1, [jnp.sin, jnp.cos], x), (NUMBERS,)),
    "repeat": (lambda x: fv.repeat(jnp.sin, 2, x, max_times=3), (NUMBERS,)),
    "while_loop": (
        lambda x: fv.while_loop(lambda v: v < 5, lambda v: 2 * v, x, max_steps=9),
        (NUMBERS,),
    ),
    "only_used": (one_update, (NUMBERS,)),
}


def test_every_public_name_is_mapped_or_says_why_not():
    assert set(MAPPED) | set(ELSEWHERE) == set(fv.__all__)
    assert not set(MAPPED) & set(ELSEWHERE)


@pytest.mark.parametrize("name", MAPPED)
def test_vmap_and_jit_equal_a_loop(name):
    function, batches = MAPPED[name]
    mapped = jax.tree.leaves(jax.jit(jax.vmap(function))(*batches))
    rows = [jax.tree.leaves(function(*(b[i] for b in batches))) for i in range(SIZE)]
    for i, leaf in enumerate(mapped):
        expected = np.stack([np.asarray(row[i]) for row in rows])
        np.testing.assert_allclose(leaf, expected, rtol=2e-5, atol=1e-6)
    jax.make_jaxpr(jax.vmap(lambda *x: function(*x)))(*batches)  # now that it has run eagerly

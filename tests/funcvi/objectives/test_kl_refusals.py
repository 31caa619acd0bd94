"""What fv.kl refuses, and what it says to do instead."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv
from tests.funcvi.objectives.oracles import KEY

NORMAL, POISSON = dist.Normal(0.0, 1.0), dist.Poisson(2.0)
MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Normal(jnp.array([0.0, 3.0]), 0.7)
)

REFUSED = {
    "unknown estimator": (
        NORMAL,
        NORMAL,
        {"estimator": "rsample"},
        "must be one of closed_form, enumeration, pathwise",
    ),
    "samples": (
        NORMAL,
        NORMAL,
        {"num_samples": 0},
        "num_samples must be a positive integer, got 0",
    ),
    "samples True": (NORMAL, NORMAL, {"num_samples": True}, "positive integer, got True"),
    "samples float": (NORMAL, NORMAL, {"num_samples": 5.0}, "positive integer, got 5.0"),
    "no closed form": (
        dist.Laplace(),
        NORMAL,
        {"estimator": "closed_form"},
        "Laplace and Normal has no closed form",
    ),
    "pathwise, discrete": (
        POISSON,
        POISSON,
        {"estimator": "pathwise"},
        'estimator="pathwise" has a zero or biased gradient for q = Poisson: Poisson is discrete.\n'
        'Use estimator="score_function"',
    ),
    "landing, discrete": (
        POISSON,
        POISSON,
        {"estimator": "sticking_the_landing"},
        'estimator="sticking_the_landing" has a zero or biased gradient',
    ),
    "pathwise, mixture": (
        dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.StudentT(jnp.array([3.0, 4.0]))
        ),
        NORMAL,
        {"estimator": "pathwise"},
        'its weights get no gradient.\nUse estimator="enumeration"',
    ),
    "enumeration, continuous": (
        NORMAL,
        NORMAL,
        {"estimator": "enumeration"},
        "no small finite support",
    ),
    "one draw for a baseline": (POISSON, POISSON, {"num_samples": 1}, "needs num_samples >= 2"),
    "infinite, real in positive": (
        NORMAL,
        dist.Gamma(1.0, 1.0),
        {},
        "KL(q || p) is infinite: q = Normal has support real, p = Gamma only positive",
    ),
    "infinite, wider interval": (
        dist.Uniform(-1.0, 1.0),
        dist.Uniform(0.0, 1.0),
        {},
        "Choose a q whose support lies inside p's",
    ),
    "infinite, counts in booleans": (POISSON, dist.Bernoulli(0.5), {}, "is infinite"),
    "infinite, counts in fewer": (dist.Binomial(5, 0.5), dist.Binomial(4, 0.5), {}, "is infinite"),
    "infinite, vector in ordered": (
        dist.Normal(jnp.zeros(2), 1.0).to_event(1),
        dist.TransformedDistribution(
            dist.Normal(jnp.zeros(2), 1.0).to_event(1), dist.transforms.OrderedTransform()
        ),
        {},
        "only ordered vector",
    ),
    "infinite, simplex in vector": (
        dist.Dirichlet(jnp.ones(3)),
        dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)),
        {},
        "is infinite",
    ),
    "mixed kinds": (
        POISSON,
        NORMAL,
        {},
        "q = Poisson is discrete and p = Normal is continuous: KL(q || p) is undefined",
    ),
    "column": (
        dist.Normal(jnp.zeros(3), 1.0),
        dist.Normal(jnp.zeros((3, 1)), 1.0),
        {},
        "q = Normal has batch shape (3,), p = Normal has (3, 1)",
    ),
    "p wider": (NORMAL, dist.Normal(jnp.zeros(3), 1.0), {}, "p must broadcast to q's"),
    "events": (
        dist.Normal(jnp.zeros(3), 1.0).to_event(1),
        dist.Normal(jnp.zeros(3), 1.0),
        {},
        "event shape (3,), p = Normal has ()",
    ),
    "names": (
        {"a": NORMAL},
        {"b": NORMAL},
        {},
        "q has members ['a'], p has ['b']: they must be the same",
    ),
    "lengths": ((NORMAL,), (NORMAL, NORMAL), {}, "they must be the same"),
    "no right estimator": (
        dist.RightCensoredDistribution(NORMAL, jnp.array(1)),
        NORMAL,
        {},
        "no estimator has a right gradient for q = RightCensoredDistribution",
    ),
    "inside a joint": ({"a": {"b": POISSON}}, {"a": {"b": NORMAL}}, {}, "q['a']['b'] = Poisson"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refuses_with_a_reason(case):
    q, p, options, message = case
    with pytest.raises(ValueError, match=r".+") as refused:
        fv.kl(q, p, key=KEY, **options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "q", [dist.Laplace(), MIXTURE, POISSON], ids=["drawn", "mixture", "scored"]
)
def test_a_missing_key_is_asked_for(q):
    p = POISSON if q is POISSON else NORMAL
    with pytest.raises(
        ValueError, match=r"is estimated from draws \(\w+\): pass key=jax.random.key"
    ):
        fv.kl(q, p)


@pytest.mark.parametrize(
    ("q", "p", "message"),
    [
        (
            dist.Normal,
            NORMAL,
            "q must be a numpyro distribution, got the class Normal: give an instance",
        ),
        (NORMAL, 3.0, "p must be a numpyro distribution, got float: call the family"),
        ({"a": NORMAL}, NORMAL, "must both be joints, or neither"),
        ({"a": {"b": NORMAL}}, {"a": NORMAL}, "q['a'] and p['a'] must both be joints"),
    ],
)
def test_refuses_what_is_no_distribution(q, p, message):
    with pytest.raises(TypeError) as refused:
        fv.kl(q, p)
    assert message in str(refused.value)


def test_refusals_hold_under_jit_where_bounds_are_traced():
    # Traced bounds cannot be compared; the fixed parts of a support still can.
    with pytest.raises(ValueError, match="is infinite"):
        jax.jit(lambda m: fv.kl(dist.Normal(m, 1.0), dist.Gamma(1.0, 1.0), key=KEY))(0.0)
    value = jax.jit(lambda a: fv.kl(dist.Uniform(0.0, a), dist.Uniform(0.0, 2.0), key=KEY))(1.0)
    assert float(value) == pytest.approx(np.log(2), rel=1e-5)

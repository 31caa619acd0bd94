"""Eager equals jit, in value, gradient and refusal: every distribution, estimator and objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcvi as fv
from funcvi.objectives.estimators import obstacle
from tests.funcvi.catalogue import NESTINGS, SINGLE
from tests.funcvi.objectives.oracles import KEY

ALL = {**SINGLE, **NESTINGS}
ESTIMATORS = (
    "enumeration",
    "pathwise",
    "sticking_the_landing",
    "doubly_reparameterised",
    "score_function",
)
UNDRAWABLE = {
    # jax has no derivative of its draws' inverse betainc.
    "GaussianCopulaBeta/matrix",
    "GaussianCopulaBeta/cholesky",
    # numpyro cannot rebuild it as a pytree, which jax.lax.stop_gradient asks for.
    "HurdleNegativeBinomial2",
}
QUICK = ("Bernoulli/probs", "Uniform", "Poisson", "MaskedDistribution")
# By every estimator; the others by the one that each objective chooses, which is long enough.
REPRESENTATIVE = (
    *QUICK,
    "Normal",
    "VonMises",
    "HurdleGamma",
    "Binomial/logits",
    "MixtureSameFamily",
    "TruncatedNormal/low",
    "RightCensoredDistribution",
    "TransformedDistribution/truncated",
)


def bounded(q, x):
    """A bounded function of draws (n, *batch, *event), summed over the event's axes."""
    values = jnp.sin(jnp.tanh(jnp.asarray(x, float) - 0.3) + 0.4)
    return values.sum(tuple(range(values.ndim - q.event_dim, values.ndim)))


def kl(q, p, estimator):
    return fv.kl(q, p, key=KEY, num_samples=3, estimator=estimator)


def expectation(q, p, estimator):
    values = fv.expectation(q, lambda x: bounded(q, x), key=KEY, num_samples=3, estimator=estimator)
    return values.sum()


def importance_weighted(q, p, estimator):
    def log_joint(z):
        return bounded(q, z)

    return fv.importance_weighted_elbo(q, log_joint, key=KEY, num_samples=3, estimator=estimator)


OBJECTIVES = {
    kl: (None, "closed_form", "enumeration", "pathwise", "sticking_the_landing", "score_function"),
    expectation: (None, "enumeration", "pathwise", "score_function"),
    importance_weighted: (None, "doubly_reparameterised", "pathwise", "score_function"),
}


def outcomes(params, q, p, objectives, messages):
    """Values and gradients; the message of each refusal goes to ``messages``."""
    results = {}
    for objective, estimators in objectives.items():
        for estimator in estimators:
            name = f"{objective.__name__}, {estimator}"

            def loss(params, objective=objective, estimator=estimator):
                return objective(q(params), p, estimator)

            try:
                results[name] = jax.value_and_grad(loss)(params)
            except (ValueError, TypeError, NotImplementedError) as error:
                messages[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return results


def params_beside(start, q):
    """Other params than those of p, for a KL with a gradient; but not beyond the edges of p."""
    params = jax.tree.map(lambda x: x + 0.1, start)
    try:
        fv.kl(q(params), q(start), key=KEY, num_samples=3)
    except ValueError as error:
        if "is infinite" in str(error):
            return start
    return params


@pytest.mark.parametrize(
    "name",
    [
        n if n in QUICK else pytest.param(n, marks=pytest.mark.slow)
        for n in ALL
        if n not in UNDRAWABLE
    ],
)
def test_value_gradient_and_refusal(name):
    objectives = OBJECTIVES if name in REPRESENTATIVE else dict.fromkeys(OBJECTIVES, (None,))
    start, q = fv.unconstrain(ALL[name]())
    params, p = params_beside(start, q), q(start)
    refused, refused_by_jit = {}, {}
    eager = outcomes(params, q, p, objectives, refused)
    compiled = jax.jit(lambda params: outcomes(params, q, p, objectives, refused_by_jit))
    jitted = compiled.lower(params).compile(FAST)(params)
    assert refused == refused_by_jit
    assert eager.keys() == jitted.keys()
    for case, pair in eager.items():
        for a, b in zip(jax.tree.leaves(pair), jax.tree.leaves(jitted[case]), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4, err_msg=case)


# Compiling takes longest; the rounding of other options differs, the choices do not.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", ALL)
def test_which_estimators_are_right(name):
    """Of every estimator, by tracing alone."""
    start, q = fv.unconstrain(ALL[name]())

    def reasons(params):
        return {e: obstacle(e, q(params)) for e in ESTIMATORS}

    traced = {}
    jax.eval_shape(jax.grad(lambda params: traced.update(reasons(params)) or 0.0), start)
    assert traced == reasons(start)

"""The fuzzer of ``tools/``: it finds a planted fault, and nothing where nothing is wrong."""

import importlib
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.lax import stop_gradient

import funcvi as fv

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("fuzz_objectives")
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def parts(fuzz):
    return importlib.import_module("fuzzing.cases"), importlib.import_module("fuzzing.laws")


def case(parts, q, p, **options):
    cases, laws = parts
    q, p = (laws.Law(*x) if isinstance(x, tuple) else laws.Law(x) for x in (q, p))
    numbers = len(laws.roles_of(q)) + len(laws.roles_of(p))
    notches = (tuple(range(numbers)),)
    plain = cases.Case(
        "kl", q, p, None, (notches,), "none", None, "float32", 1, "hessian", "jit", False, 8
    )
    return plain._replace(**options)


def without_paths(q, p, *, key, num_samples, estimator):
    """A divergence whose draws stand still: its gradient is that of log q and log p alone."""
    x = stop_gradient(fv.sample(q, key, (num_samples,)))
    return (q.log_prob(x) - p.log_prob(x)).mean(0).sum()


def test_a_planted_fault_is_found_and_shrunk(fuzz):
    run = fuzz.Run({"kl": without_paths}, quiet=True)
    with jax.enable_x64(False):
        run.one_round(seed=1, deadline=time.process_time() + 60, only="kl", size=30, shrinks=4)
    ((_, outcome),) = run.findings
    assert outcome.name in ("WRONG", "UNEQUAL"), outcome


@pytest.mark.parametrize(("planted", "name"), [(None, "right"), ({"kl": without_paths}, "WRONG")])
def test_the_fault_is_in_the_gradient_alone(fuzz, parts, planted, name):
    of = case(parts, "Gamma", "LogNormal")
    outcome = fuzz.check(of, planted)
    assert outcome.name == name, outcome
    assert "derivative 1" in outcome.detail or planted is None
    assert fuzz.check(of._replace(order=0), planted).name == "right"


def test_the_oracle_sums_over_as_many_counts_as_q_needs(parts):
    """Although p, which is much smaller there, needs fewer."""
    of = case(parts, "Poisson", "Poisson", notches=(((9, -9),),), dtype="float64")
    rate, other = (x.item() for x in of.points().T)
    (answer,) = parts[0].answers(of)
    exact = rate * np.log(rate / other) - rate + other
    np.testing.assert_allclose(answer.numbers[0], exact, rtol=1e-10)
    assert answer.outside == 0


@pytest.mark.parametrize(
    ("q", "p", "options", "name"),
    [
        ("Poisson", "Geometric", {"order": 2}, "right"),
        ("Poisson", "Geometric", {"estimator": "pathwise"}, "refused"),
        ("Normal", "Gamma", {}, "refused"),
        ("Normal", "Logistic", {"transformation": "eager", "dtype": "float64"}, "right"),
    ],
    ids=lambda x: str(x),
)
def test_what_the_library_does_has_a_name(fuzz, parts, q, p, options, name):
    outcome = fuzz.check(case(parts, q, p, **options))
    assert outcome.name == name, outcome


def twice(q, p, **options):
    return 2 * fv.kl(q, p, **options)


def of_elbo(guide, num_samples, estimator):
    return fv.negative_elbo(guide, num_samples=num_samples)


def narrow(q, p, **options):
    return fv.kl(q, p, **options).astype("float16")


def at_the_edge(d, key, sample_shape):
    return 0 * fv.sample(d, key, sample_shape)


ON_SITE = {"wrapper": "model", "site": "positive", "fixed": True}


@pytest.mark.parametrize(
    ("objective", "q", "p", "options", "planted", "name"),
    [
        ("forward_kl", "Normal", "Gamma", ON_SITE, of_elbo, "WRONG"),
        ("renyi", "Logistic", "LogNormal", ON_SITE, of_elbo, "WRONG"),
        ("kl", "Dirichlet", "Dirichlet", {"estimator": "pathwise", "order": 0}, twice, "WRONG"),
        ("kl", "NormalLowRank", "NormalPrecision", {"order": 0}, twice, "WRONG"),
        ("kl", "Delta", "Normal", {"order": 2}, twice, "WRONG"),
        ("kl", "Normal", "Logistic", {"dtype": "bfloat16"}, twice, "WRONG"),
        ("kl", "Normal", "Logistic", {"order": 0, "dtype": "bfloat16"}, narrow, "DTYPE"),
        ("sample", "Gamma", None, {"order": 0, "dtype": "float16"}, at_the_edge, "WRONG"),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_each_kind_of_case_is_right_and_shows_a_fault(
    fuzz, parts, objective, q, p, options, planted, name
):
    of = case(parts, q, p or q, objective=objective, **options)
    if p is None:
        own = len(parts[1].roles_of(of.q))
        of = of._replace(p=None, notches=((of.notches[0][0][:own],),))
    assert fuzz.check(of).name == "right"
    outcome = fuzz.check(of, {objective: planted})
    assert outcome.name == name, outcome

"""What cannot be inferred is refused in three lines at most, by its site, or is never reliable."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
Y = jnp.array([0.3, 1.2, -0.5, 2.0])


def simple(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of_a_nan_scale(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, jnp.sqrt(-1 - mean**2)), obs=y)


def of_a_negative_scale(y: Any) -> None:
    scale = numpyro.sample("scale", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


def of_a_nan_prior(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, jnp.nan))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of_a_nan_factor(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("penalty", jnp.log(-1 - mean**2))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of_positive_data(y: Any) -> None:
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Gamma(rate, 1.0), obs=y)


def of_a_nan_gradient(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    other = numpyro.sample("other", dist.Normal(0.0, 1.0))
    numpyro.sample(
        "y", dist.Normal(mean + jnp.where(other < 9, 0.0, jnp.sqrt(other - 9)), 1.0), obs=y
    )


def of_one_name(y: Any) -> None:
    for _ in range(2):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def in_a_plate(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of_counts(y: Any, count: dist.Distribution) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    count = numpyro.sample("count", count)
    numpyro.sample("y", dist.Normal(mean + count, 1.0), obs=y)


def of_nothing_continuous(y: Any) -> None:
    kind = numpyro.sample("kind", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(kind, 1.0), obs=y)


def density(function: Callable[[Any], Any], support: Any = constraints.real) -> fv.Target:
    return fv.target(lambda v: function(v["x"]), supports={"x": support})


START = r"non-finite at 100 starts[^\n]*\nAt zero "
RANGE = r"Normal distribution got invalid scale parameter\. It is that of "
CATEGORIES = dist.Categorical(jnp.full(2000, 1 / 2000))

#: What makes a target, and what is said: by fv.target, or by each of the approximations.
OF_TARGETS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "NaN data": (
        lambda: fv.target(simple, Y.at[1].set(jnp.nan)),
        ValueError,
        START + "site 'y' observes NaN in 1 of 4 entries, at mean = 0",
    ),
    "infinite data": (
        lambda: fv.target(simple, Y.at[1].set(jnp.inf)),
        ValueError,
        START + r"site 'y' \(Normal\) has the log density -inf in 1 of 4 entries",
    ),
    "a NaN scale": (lambda: fv.target(of_a_nan_scale, Y), ValueError, RANGE + "the site after 'me"),
    "a NaN prior": (lambda: fv.target(of_a_nan_prior, Y), ValueError, RANGE + "the first site"),
    "a negative scale": (
        lambda: fv.target(of_a_negative_scale, Y),
        ValueError,
        RANGE + "the site after 'scale'",
    ),
    "a NaN factor": (
        lambda: fv.target(of_a_nan_factor, Y),
        ValueError,
        START + r"site 'penalty' \(factor\) has the log density nan, at mean = 0",
    ),
    "data outside of the support": (
        lambda: fv.target(of_positive_data, Y),
        ValueError,
        START + r"site 'y' \(Gamma\) has the log density -inf in 1 of 4 entries, at rate = 1",
    ),
    "a NaN gradient": (
        lambda: fv.target(of_a_nan_gradient, Y),
        ValueError,
        START + r"its gradient by \['other'\] is not finite",
    ),
    "NaN everywhere": (lambda: density(lambda x: x * jnp.nan), ValueError, START + "it is nan"),
    "one name": (
        lambda: fv.target(of_one_name, Y),
        ValueError,
        "two sites of the model have one name: .*`mean` duplicated",
    ),
    "no data": (
        lambda: fv.target(simple, Y[:0]),
        ValueError,
        r"site 'y' observes no data, shape \(0,\): the posterior would be the prior",
    ),
    "no rows": (
        lambda: fv.target(in_a_plate, Y[:0]),
        ValueError,
        "a plate of the model has no rows: the data are empty",
    ),
    "a list": (
        lambda: fv.target(simple, [1.0, 2.0]),
        TypeError,
        r"site 'y' observes a list: give it an array",
    ),
    "words": (lambda: fv.target(simple, "abc"), TypeError, "site 'y' observes a str"),
    "2000 categories": (
        lambda: fv.target(of_counts, Y, CATEGORIES),
        ValueError,
        "latent site 'count' is discrete .* with 2000 values, more than 1000: sum it out by hand",
    ),
    "counts": (
        lambda: fv.target(of_counts, Y, dist.Poisson(3.0)),
        ValueError,
        "latent site 'count' is discrete .* sum it out by hand",
    ),
    "nothing continuous": (
        lambda: fv.target(of_nothing_continuous, Y),
        ValueError,
        r"no continuous latent site, only discrete ones \(\['kind'\]\)",
    ),
    "no number": (lambda: density(lambda x: None), TypeError, "scalar array, got NoneType"),
    "a vector": (lambda: density(lambda x: x * jnp.ones(3)), ValueError, r"got shape \(3,\): sum"),
    "a model": (lambda: simple, TypeError, "expected a target, got function: wrap the model"),
    "a number": (lambda: 3.0, TypeError, "expected a target, got float"),
    "a guide": (
        lambda: fv.mean_field(fv.target(simple, Y)),
        TypeError,
        r"expected a target, got Guide: it has one already: pass guide\.target",
    ),
    "a posterior": (
        lambda: fv.Posterior(fv.mean_field(fv.target(simple, Y)), {}),
        TypeError,
        r"expected a target, got Posterior: it has one already: pass posterior\.target",
    ),
}


def numpyro_validates() -> bool:
    try:
        dist.Normal(0.0, -1.0)
    except ValueError:
        return True
    return False


def laplace(target: Any, *, key: Any) -> Any:
    return fv.laplace(target).init(key)


@pytest.mark.parametrize("name", OF_TARGETS)
@pytest.mark.parametrize("infer", [fv.infer, fv.batch_and_match, laplace])
def test_a_bad_target_is_refused_by_name(name: str, infer: Callable[..., Any]) -> None:
    make, kind, words = OF_TARGETS[name]
    if words.startswith(RANGE) and not numpyro_validates():
        pytest.skip("numpyro before 0.22 looks at no parameters, if it is not asked to")
    with pytest.raises(kind, match=words) as caught:
        infer(make(), key=KEY)
    assert str(caught.value).count("\n") <= 2


OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no budget": ({"budget": 0}, ValueError, "budget must be a positive number of seconds, got 0"),
    "a negative budget": ({"budget": -1.0}, ValueError, "budget must be a positive number"),
    "NaN seconds": ({"budget": float("nan")}, ValueError, "budget must be a positive number"),
    "a word for a budget": ({"budget": "1 s"}, ValueError, "budget must be a positive number"),
    "a number for a key": ({"key": 0}, TypeError, "key must be a single key .* got int"),
    "several keys": (
        {"key": jax.random.split(KEY, 3)},
        TypeError,
        r"key must be a single key .*jax\.vmap\(lambda key: fv\.batch_and_match\(target, key=key\)",
    ),
    "numbers for a key": ({"key": jnp.zeros(2)}, TypeError, r"got float32\[2\]"),
    "no method": ({"method": None}, ValueError, "method must be one of"),
    "a word for progress": ({"progress": "bar"}, TypeError, "progress must be True or False"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options_are_refused(name: str) -> None:
    options, kind, words = OPTIONS[name]
    with pytest.raises(kind, match=words):
        fv.infer(fv.target(simple, Y), **({"key": KEY} | options))


@pytest.mark.parametrize("name", ["num_steps", "num_starts", "num_samples"])
@pytest.mark.parametrize("value", [0, -2, 2.5, True])
def test_numbers_are_positive_integers(name: str, value: Any) -> None:
    target = fv.target(simple, Y)
    with pytest.raises((ValueError, TypeError), match=f"{name} must be"):
        fv.batch_and_match(target, key=KEY, **{name: value})
    if name == "num_steps":
        with pytest.raises(ValueError, match="num_steps must be a positive integer"):
            fv.laplace(target, num_steps=value)


def test_a_site_with_values_of_no_probability_is_not_to_blame() -> None:
    """Of a factor in a plate, which observes nothing, and a category that never is."""

    def model(y: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y)):
            numpyro.factor("tilt", 0.1 * mean)
            kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.5, 0.5, 0.0])))
            numpyro.sample("y", dist.Normal(mean + kind, 1.0), obs=y)

    target = fv.target(model, Y)
    zero = {"mean": jnp.zeros(())}
    assert bool(jnp.isfinite(target.log_density(zero)))
    assert target.faults is not None
    assert target.faults(zero) == ""
    bad = fv.target(model, Y.at[2].set(jnp.nan))
    assert bad.faults is not None
    assert bad.faults(zero) == "site 'y' observes NaN in 1 of 4 entries, at mean = 0"


def half(x: Any) -> Any:
    return jnp.where(x > 0, dist.Normal(0.0, 1.0).log_prob(x), -jnp.inf)


def uniform_data(y: Any) -> None:
    end = numpyro.sample("end", dist.HalfNormal(5.0))
    numpyro.sample("y", dist.Uniform(0.0, end), obs=y)


#: Targets that are wrong and have starts all the same: what the report says.
NEVER_RELIABLE: dict[str, tuple[Callable[[], fv.Target], str]] = {
    "minus infinity on half of the line": (lambda: density(half), "inside of its declared support"),
    "NaN on half of the line": (
        lambda: density(lambda x: jnp.log(x) - x),
        "inside of its declared support",
    ),
    "infinity on half of the line": (
        lambda: density(lambda x: jnp.where(x > 0, jnp.inf, -(x**2))),
        "inside of its declared support",
    ),
    "a hole": (
        lambda: density(lambda x: jnp.where(jnp.abs(x) > 0.3, -0.5 * x**2, -jnp.inf)),
        "inside of its declared support",
    ),
    "data that end at a latent": (
        lambda: fv.target(uniform_data, jnp.array([1.0, 3.0, 2.0])),
        r"\(site 'y' \(Uniform\) has the log density -inf .* at end = ",
    ),
    "flat": (lambda: density(lambda x: 0.0 * x), "does not fall far out along x"),
    "flat on the positive line": (
        lambda: density(lambda x: 0.0 * x, constraints.positive),
        "not finite|does not fall|mixed|few effective",
    ),
    "without a scale": (
        lambda: density(lambda x: -jnp.log(x), constraints.positive),
        "does not fall far out along x",
    ),
}


@pytest.mark.parametrize("name", NEVER_RELIABLE)
def test_what_has_no_posterior_is_never_reliable(name: str) -> None:
    make, words = NEVER_RELIABLE[name]
    target = make()
    for method in ("variational", "auto"):
        posterior, report = fv.infer(target, key=KEY, method=method)
        assert report.verdict != "reliable"
        assert report.careful == tuple(target.shapes)
        assert fv.sample(posterior, KEY, (10,)).keys() == set(target.shapes)
    assert re.search(words, report.message)

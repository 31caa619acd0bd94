"""Survival: censored, truncated, and missing data."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from numpyro import handlers

from tests.funcvi.models.entries import Entry, entry

RNG = np.random.default_rng(4)
TIMES = RNG.exponential(2.0, 6)
DIED = np.array([1, 1, 0, 1, 0, 1])
AGE = RNG.normal(size=6)


def exponential_by_factor(times, died):
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    numpyro.factor("likelihood", jnp.sum(died * jnp.log(rate) - rate * times))


def weibull_by_masks(times, died, age):
    shape, base = (numpyro.sample(n, dist.LogNormal(0.0, 0.5)) for n in ("shape", "base"))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = base * jnp.exp(-slope * age / shape)
    with numpyro.plate("patients", len(times)):
        with handlers.mask(mask=died == 1):
            numpyro.sample("times", dist.Weibull(scale, shape), obs=times)
        with handlers.mask(mask=died == 0):
            numpyro.factor("survived", -((times / scale) ** shape))


def censored_as_latents(times, died):
    """Those still alive die later: a truncated latent for each."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    alive = times[np.asarray(DIED) == 0]
    numpyro.sample("seen", dist.Normal(mean, scale), obs=times[np.asarray(DIED) == 1])
    later = numpyro.sample("later", dist.TruncatedNormal(mean, scale, low=alive))
    numpyro.factor("weight", log_ndtr((mean - alive) / scale).sum())
    numpyro.deterministic("all", later.sum())


def piecewise_hazards(times, died):
    """Cox's model: constant hazards, as Poisson counts."""
    with numpyro.plate("intervals", 3):
        hazard = numpyro.sample("hazard", dist.Gamma(0.5, 0.5))
    exposure = jnp.clip(times[:, None] - jnp.array([0.0, 1.0, 2.0]), 0.0, 1.0) + 1e-6
    events = died[:, None] * (jnp.ceil(times)[:, None] == jnp.array([1.0, 2.0, 3.0]))
    numpyro.sample("events", dist.Poisson(hazard * exposure), obs=events.astype(int))


def cured_or_not(times, died):
    cured = numpyro.sample("cured", dist.Beta(1.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    dead = jnp.log1p(-cured) + jnp.log(rate) - rate * times
    alive = jnp.log(cured + (1 - cured) * jnp.exp(-rate * times))
    with numpyro.plate("patients", len(times)):
        numpyro.factor("likelihood", jnp.where(died == 1, dead, alive))


def tobit(x, y):
    slope, scale = (
        numpyro.sample("slope", dist.Normal()),
        numpyro.sample("scale", dist.HalfNormal()),
    )
    mean = slope * x
    seen = dist.Normal(mean, scale).log_prob(y)
    numpyro.factor("y", jnp.where(y > 0, seen, log_ndtr(-mean / scale)))


def only_what_exceeds(y):
    """Truncated data: nothing below one is recorded."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.TruncatedNormal(mean, scale, low=1.0), obs=y)


def truncation_learned(y):
    """The bound is below all data, and is learned."""
    low = numpyro.sample("low", dist.Normal(-3.0, 1.0))
    width = numpyro.sample("width", dist.Gamma(4.0, 1.0))
    d = dist.TruncatedDistribution(dist.Logistic(0.5, 1.0), low=low - 4.0, high=low + width + 9)
    numpyro.sample("y", d, obs=y)


def gompertz(times):
    rate, shape = (numpyro.sample(n, dist.LogNormal(-1.0, 0.5)) for n in ("rate", "shape"))
    numpyro.sample("times", dist.Gompertz(shape, rate), obs=times)


def income(y):
    alpha = numpyro.sample("alpha", dist.Gamma(3.0, 1.0))
    low = numpyro.sample("low", dist.Uniform(0.1, jnp.min(y)))  # a bound from the data
    numpyro.sample("y", dist.Pareto(low, alpha), obs=y)


def right_censored(times, died):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    d = dist.RightCensoredDistribution(dist.Exponential(rate), censored=1 - died)
    numpyro.sample("times", d, obs=times)


def interval_censored(low, high):
    mean, scale = (
        numpyro.sample("mean", dist.Normal()),
        numpyro.sample("scale", dist.Pareto(1.0, 2.0)),
    )
    between = jnp.log(dist.Normal(mean, scale).cdf(high) - dist.Normal(mean, scale).cdf(low))
    numpyro.factor("between", between)


def missing_ages(age, seen, y):
    """Imputed where they are not seen: latents beside data of one site."""
    mean, spread = (
        numpyro.sample("mean", dist.Normal()),
        numpyro.sample("spread", dist.HalfNormal()),
    )
    slope = numpyro.sample("slope", dist.Normal())
    with numpyro.plate("rows", len(y)):
        age = numpyro.sample("age", dist.Normal(mean, spread), obs=age, obs_mask=seen)
        numpyro.sample("y", dist.Normal(slope * age, 0.5), obs=y)


SEEN = np.array([True, False, True, True, False, True])


def missing_ages_density(values):
    mean, spread, slope = values["mean"], values["spread"], values["slope"]
    latent = values["age_unobserved"]
    age = jnp.where(SEEN, AGE, latent)
    total = dist.Normal().log_prob(mean) + dist.HalfNormal().log_prob(spread)
    total += dist.Normal().log_prob(slope) + dist.Normal(mean, spread).log_prob(age).sum()
    total += dist.Normal(slope * age, 0.5).log_prob(TIMES).sum()
    return total + jnp.where(SEEN, dist.Normal().log_prob(latent), 0.0).sum()


def missing_by_index(age, y):
    """Imputed by hand: latents set into an array."""
    mean = numpyro.sample("mean", dist.Normal())
    with numpyro.plate("missing", 2):
        filled = numpyro.sample("filled", dist.Normal(mean, 1.0).mask(True))
    age = jnp.asarray(age).at[np.array([1, 4])].set(filled)
    numpyro.sample("age", dist.Normal(mean, 1.0).mask(np.asarray(SEEN)), obs=age)
    slope = numpyro.sample("slope", dist.Normal())
    numpyro.sample("y", dist.Normal(slope * age, 0.5), obs=y)


ENTRIES = [
    entry(exponential_by_factor, TIMES, DIED),
    entry(weibull_by_masks, TIMES, DIED, AGE),
    entry(censored_as_latents, TIMES, DIED),
    entry(piecewise_hazards, TIMES, DIED),
    entry(cured_or_not, TIMES, DIED),
    entry(tobit, AGE, np.maximum(AGE, 0.0)),
    entry(only_what_exceeds, 1.0 + TIMES),
    entry(truncation_learned, AGE),
    entry(gompertz, TIMES),
    entry(income, 1.0 + TIMES),
    entry(interval_censored, AGE, AGE + 0.7),
    entry(missing_by_index, AGE, TIMES),
    Entry(
        "missing ages",
        missing_ages,
        (AGE, SEEN, TIMES),
        log_density=missing_ages_density,
        note="numpyro gives the masked entries of the latents no density; a normal one here",
    ),
]
if hasattr(dist, "RightCensoredDistribution"):  # numpyro 0.21 has none
    # Short times: numpyro keeps the log survival above that of one rounding (-15.9 in float32).
    ENTRIES.append(entry(right_censored, TIMES / 4, DIED))

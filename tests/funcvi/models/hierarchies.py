"""Groups that share what they learn: eight schools, batting averages, slopes by county."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from tests.funcvi.models.entries import entry

RNG = np.random.default_rng(0)
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
AT_BATS = np.array([45, 45, 40, 38, 50])
HITS = np.array([18, 17, 12, 9, 14])
COUNTY = np.array([0, 0, 1, 1, 1, 2, 2, 3])
FLOOR = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
RADON = RNG.normal(1.0, 0.5, 8)
WEEKS = np.linspace(-1.0, 1.0, 4)


def schools_centred(effects, errors):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(effects)):
        effect = numpyro.sample("effect", dist.Normal(mean, spread))
        numpyro.sample("seen", dist.Normal(effect, errors), obs=effects)


def schools_non_centred(effects, errors):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    log_spread = numpyro.sample("log spread", dist.Normal(1.0, 1.0))
    with numpyro.plate("schools", len(effects)):
        unit = numpyro.sample("unit", dist.Normal(0.0, 1.0))
        effect = numpyro.deterministic("effect", mean + jnp.exp(log_spread) * unit)
        numpyro.sample("seen", dist.Normal(effect, errors), obs=effects)


def schools_affine(effects, errors):
    """By a transform of the prior."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(effects)):
        with handlers.reparam(config={"effect": TransformReparam()}):
            prior = dist.TransformedDistribution(
                dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(mean, spread)
            )
            effect = numpyro.sample("effect", prior)
        numpyro.sample("seen", dist.Normal(effect, errors), obs=effects)


def schools_partly_centred(effects, errors):
    """How much the centring is, is learned."""
    config = {"effect": LocScaleReparam(centered=0.3)}
    return handlers.reparam(schools_centred, config=config)(effects, errors)


def batting_all_alike(at_bats, hits):
    chance = numpyro.sample("chance", dist.Uniform(0.0, 1.0))
    with numpyro.plate("players", len(hits)):
        numpyro.sample("hits", dist.Binomial(at_bats, probs=chance), obs=hits)


def batting_all_different(at_bats, hits):
    with numpyro.plate("players", len(hits)):
        chance = numpyro.sample("chance", dist.Uniform(0.0, 1.0))
        numpyro.sample("hits", dist.Binomial(at_bats, probs=chance), obs=hits)


def batting_partly_pooled(at_bats, hits):
    mean = numpyro.sample("mean", dist.Uniform(0.0, 1.0))
    size = numpyro.sample("size", dist.Pareto(1.0, 1.5))
    with numpyro.plate("players", len(hits)):
        chance = numpyro.sample("chance", dist.Beta(mean * size, (1 - mean) * size))
        numpyro.sample("hits", dist.Binomial(at_bats, probs=chance), obs=hits)


def batting_log_odds(at_bats, hits):
    mean = numpyro.sample("mean", dist.Normal(-1.0, 1.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(1.0))
    with numpyro.plate("players", len(hits)):
        with handlers.reparam(config={"log odds": LocScaleReparam(0.0)}):
            log_odds = numpyro.sample("log odds", dist.Normal(mean, spread))
        numpyro.sample("hits", dist.Binomial(at_bats, logits=log_odds), obs=hits)


def radon_slopes(county, floor, radon):
    """Intercepts and slopes that correlate (LKJ), by county."""
    scale = numpyro.sample("scale", dist.Exponential(1.0).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, 2.0))
    middle = numpyro.sample("middle", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("counties", 4):
        both = numpyro.sample(
            "both", dist.MultivariateNormal(middle, scale_tril=scale[:, None] * factor)
        )
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    line = both[county, 0] + both[county, 1] * floor
    with numpyro.plate("homes", len(radon)):
        numpyro.sample("radon", dist.Normal(line, noise), obs=radon)


def three_levels(y):
    top = numpyro.sample("top", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.Gamma(2.0, jnp.array([1.0, 2.0, 3.0])).to_event(1))
    with numpyro.plate("states", 2, dim=-3):
        state = numpyro.sample("state", dist.Normal(top, scale[0]))
        with numpyro.plate("towns", 3, dim=-2):
            town = numpyro.sample("town", dist.Normal(state, scale[1]))
            with numpyro.plate("people", 2, dim=-1):
                numpyro.sample("y", dist.StudentT(4.0, town, scale[2]), obs=y)


def crossed(y):
    """Items and persons: every pair is seen."""
    with numpyro.plate("persons", 3, dim=-2):
        person = numpyro.sample("person", dist.Normal(0.0, 1.0))
    with numpyro.plate("items", 4, dim=-1):
        item = numpyro.sample("item", dist.Laplace(0.0, 1.0))
    with numpyro.plate("persons", 3, dim=-2), numpyro.plate("items", 4, dim=-1):
        numpyro.sample("y", dist.Normal(person + item, 1.0), obs=y)


def lung_decline(patient, week, volume):
    """A line for each patient, by latents of event shape."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with numpyro.plate("patients", 3):
        line = numpyro.sample("line", dist.Normal(mean, spread).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(line[patient, 0] + line[patient, 1] * week, noise), obs=volume)


def funnel(size):
    log_scale = numpyro.sample("log scale", dist.Normal(0.0, 3.0))
    numpyro.sample("x", dist.Normal(jnp.zeros(size), jnp.exp(log_scale / 2)))


def funnel_reparameterised(size):
    return handlers.reparam(funnel, config={"x": LocScaleReparam(0)})(size)


def tadpoles(at_risk, survived):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.5))
    spread = numpyro.sample("spread", dist.Exponential(1.0))
    tank = numpyro.sample("tank", dist.Normal(mean, spread), sample_shape=(len(at_risk),))
    numpyro.sample("survived", dist.Binomial(at_risk, logits=tank), obs=survived)


def admissions(department, male, applied, admitted):
    mean = numpyro.sample("mean", dist.Normal(0.0, 4.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("departments", 3):
        base = numpyro.sample("base", dist.Normal(mean, spread))
    odds = base[department] + slope * male
    numpyro.sample("admitted", dist.Binomial(applied, logits=odds), obs=admitted)


def zero_sum_effects(y):
    effect = numpyro.sample("effect", dist.ZeroSumNormal(1.5, (3,)))
    base = numpyro.sample("base", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(base + effect, 1.0).to_event(1), obs=y)


PATIENT = np.repeat(np.arange(3), 4)
DEPARTMENT, MALE = np.array([0, 0, 1, 1, 2, 2]), np.array([0.0, 1.0] * 3)

ENTRIES = [
    entry(schools_centred, EFFECTS, ERRORS),
    entry(schools_non_centred, EFFECTS, ERRORS),
    entry(schools_affine, EFFECTS, ERRORS),
    entry(schools_partly_centred, EFFECTS, ERRORS),
    entry(batting_all_alike, AT_BATS, HITS),
    entry(batting_all_different, AT_BATS, HITS),
    entry(batting_partly_pooled, AT_BATS, HITS),
    entry(batting_log_odds, AT_BATS, HITS),
    entry(radon_slopes, COUNTY, FLOOR, RADON),
    entry(three_levels, RNG.normal(size=(2, 3, 2))),
    entry(crossed, RNG.normal(size=(3, 4))),
    entry(lung_decline, PATIENT, np.tile(WEEKS, 3), RNG.normal(size=12)),
    entry(funnel, 4),
    entry(funnel_reparameterised, 4),
    entry(tadpoles, np.array([10, 10, 25]), np.array([9, 4, 20])),
    entry(admissions, DEPARTMENT, MALE, np.full(6, 20), np.array([3, 7, 9, 8, 15, 11])),
    entry(zero_sum_effects, np.array([0.3, -0.2, 1.0])),
]

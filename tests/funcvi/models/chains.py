"""Hidden Markov models by numpyro's scan, whose discrete states are summed out step by step."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

from tests.funcvi.models.entries import Entry, entry

RNG = np.random.default_rng(7)
Y = RNG.normal(size=4)
SERIES = RNG.normal(size=(3, 2))  # by step and series
TONES = np.array([[[0, 1], [1, 1]], [[1, 0], [0, 0]], [[0, 0], [1, 0]]])  # and by tone
CAUGHT = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]])


def rows_and_means(number=2):
    rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(number)).expand([number]).to_event(1))
    means = numpyro.sample("means", dist.Normal(0.0, jnp.ones(number)).to_event(1))
    return rows, means


def states(y):
    rows, means = rows_and_means(3)

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, 0, y)


def states_of_series(y):
    """The states of each series, in a plate of the body."""
    rows, means = rows_and_means()

    def step(z, y):
        with numpyro.plate("series", 2):
            z = numpyro.sample("z", dist.Categorical(rows[z]))
            numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, jnp.zeros(2, int), y)


def states_of_tones(tones):
    """Chorales: each state sounds some of the tones."""
    rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)).expand([2]).to_event(1))
    probs = numpyro.sample("probs", dist.Beta(1.0, 2.0).expand([2, 2]).to_event(2))

    def step(z, tones):
        with numpyro.plate("series", 2, dim=-2):
            z = numpyro.sample("z", dist.Categorical(rows[z]))
            with numpyro.plate("tones", 2, dim=-1) as tone:
                numpyro.sample("y", dist.Bernoulli(probs[z, tone]), obs=tones)
        return z, None

    scan(step, jnp.zeros((2, 1), int), tones)


def states_with_memory_of_data(y):
    """What is seen depends on what was seen, and on the state."""
    rows, means = rows_and_means()
    pull = numpyro.sample("pull", dist.Normal(0.0, 0.5))

    def step(carry, y):
        z, before = carry
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z] + pull * before, 1.0), obs=y)
        return (z, y), None

    scan(step, (0, 0.0), y)


def states_from_a_first(y):
    """The first state is drawn before the scan."""
    rows, means = rows_and_means()
    z = numpyro.sample("z0", dist.Categorical(jnp.array([0.3, 0.7])))
    numpyro.sample("y0", dist.Normal(means[z], 1.0), obs=y[0])

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, z, y[1:])


def states_of_series_from_firsts(y):
    rows, means = rows_and_means()
    with numpyro.plate("series", 2):
        z = numpyro.sample("z0", dist.Bernoulli(0.4))

    def step(z, y):
        with numpyro.plate("series", 2):
            z = numpyro.sample("z", dist.Categorical(rows[z]))
            numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, z, y)


def two_chains_at_once(y):
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))

    def step(carry, y):
        z, u = carry
        z = numpyro.sample("z", dist.Bernoulli(jnp.where(z == 1, p, 0.3)))
        u = numpyro.sample("u", dist.Bernoulli(jnp.where(u == 1, 0.8, 1 - p)))
        numpyro.sample("y", dist.Normal(means[z, u], 1.0), obs=y)
        return (z, u), None

    scan(step, (0, 1), y)


def states_that_emit_mixtures(y):
    """A discrete site of each step that no later one reads."""
    rows, means = rows_and_means()

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        w = numpyro.sample("w", dist.Bernoulli(0.3 + 0.4 * z))
        numpyro.sample("y", dist.Normal(means[z] + 2.0 * w, 1.0), obs=y)
        return z, None

    scan(step, 1, y)


def regimes_of_a_level(y):
    """Continuous latents beside the states: a switching state space model."""
    scales = numpyro.sample("scales", dist.HalfNormal(jnp.ones(2)).to_event(1))

    def step(carry, y):
        z, level = carry
        z = numpyro.sample("z", dist.Bernoulli(jnp.where(z == 1, 0.8, 0.2)))
        level = numpyro.sample("level", dist.Normal(level, scales[z]))
        numpyro.sample("width", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(level, 0.5), obs=y)
        numpyro.deterministic("twice", 2 * level)
        return (z, level), None

    scan(step, (0, 0.0), y)


def recapture_by_scan(caught):
    """Capture and recapture: survival of each interval, and the animals in a plate."""
    detection = numpyro.sample("detection", dist.Uniform(0.0, 1.0))

    def step(z, caught):
        survival = numpyro.sample("survival", dist.Uniform(0.0, 1.0))
        with numpyro.plate("animals", 3):
            z = numpyro.sample("z", dist.Bernoulli(survival * z))
            numpyro.sample("y", dist.Bernoulli(detection * z), obs=caught)
        return z, None

    scan(step, jnp.ones(3, int), caught)


def states_under_a_cause(y):
    """A discrete site outside, which all steps read."""
    rows, means = rows_and_means()
    shift = numpyro.sample("shift", dist.Bernoulli(0.3))

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z] + shift, 1.0), obs=y)
        return z, None

    scan(step, 0, y)


def states_one_by_one(y):
    """A mixture: no step reads another."""
    rows, means = rows_and_means()

    def step(count, y):
        z = numpyro.sample("z", dist.Categorical(rows[0]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return count + 1, None

    scan(step, 0, y)


def states_scaled(y):
    with handlers.scale(scale=2.0):
        states_of_two(y)


def states_of_two(y):
    rows, means = rows_and_means()

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, 0, y)


def states_counted(y):
    """Time is carried too, and a penalty by state."""
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))

    def step(carry, y):
        z, t = carry
        z = numpyro.sample("z", dist.Binomial(2, jnp.where(z > 0, p, 0.3)))
        numpyro.factor("penalty", -0.1 * t * z)
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return (z, t + 1), None

    scan(step, (0, 0), y)


def states_in_two_scans(y):
    rows, means = rows_and_means()
    for part in range(2):

        def step(z, y, part=part):
            z = numpyro.sample(f"z{part}", dist.Categorical(rows[z]))
            numpyro.sample(f"y{part}", dist.Normal(means[z], 1.0), obs=y)
            return z, None

        scan(step, 0, y[2 * part : 2 * part + 2])


def state_of_a_branch(y):
    """A discrete site within a branch: it was drawn from its prior there, in silence."""
    a = numpyro.sample("a", dist.Normal())
    z = cond(
        a > 0,
        lambda _: numpyro.sample("z", dist.Bernoulli(0.3)),
        lambda _: numpyro.sample("z", dist.Bernoulli(0.6)),
        None,
    )
    numpyro.sample("y", dist.Normal(3.0 * z + a, 1.0), obs=y)


def states_padded(y, mask):
    """Series of unequal lengths: masks over states and data."""
    rows, means = rows_and_means()

    def step(z, x):
        y, mask = x
        with numpyro.plate("series", 2), handlers.mask(mask=mask):
            z = numpyro.sample("z", dist.Categorical(rows[z]))
            numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, jnp.zeros(2, int), (y, mask))


MASK = np.arange(3)[:, None] < np.array([3, 1])


def forward(rows, means, y):
    alpha = jnp.log(rows[0]) + dist.Normal(means, 1.0).log_prob(y[0])
    for one in y[1:]:
        alpha = logsumexp(alpha[:, None] + jnp.log(rows), 0) + dist.Normal(means, 1.0).log_prob(one)
    return logsumexp(alpha)


def prior(values):
    total = dist.Dirichlet(jnp.ones(2)).log_prob(values["rows"]).sum()
    return total + dist.Normal(0.0, 1.0).log_prob(values["means"]).sum()


def padded_density(values):
    chains = (forward(values["rows"], values["means"], y) for y in (SERIES[:, 0], SERIES[:1, 1]))
    return prior(values) + sum(chains)


def mixture_of_some(y):
    """Masked states of rows: no scan."""
    rows, means = rows_and_means()
    with numpyro.plate("data", 4), handlers.mask(mask=np.array([True, True, False, True])):
        z = numpyro.sample("z", dist.Categorical(rows[0]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def mixture_of_some_density(values):
    parts = jnp.log(values["rows"][0]) + dist.Normal(values["means"], 1.0).log_prob(
        Y[np.array([0, 1, 3])][:, None]
    )
    return prior(values) + logsumexp(parts, -1).sum()


def scaled_density(values):
    return 2 * (prior(values) + forward(values["rows"], values["means"], Y))


def states_backwards(y):
    rows, means = rows_and_means()

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, 0, y, reverse=True)


def backwards_density(values):
    return prior(values) + forward(values["rows"], values["means"], Y[::-1])


_MASKED = "numpyro counts each value of a masked discrete latent once: uniform here"

ENTRIES = [
    entry(states, Y),
    entry(states, Y[:1], name="states of one step"),
    entry(states, Y[:2], name="states of two steps"),
    entry(states_of_series, SERIES),
    entry(states_of_tones, TONES),
    entry(states_with_memory_of_data, Y),
    entry(states_from_a_first, Y),
    entry(states_of_series_from_firsts, SERIES),
    entry(two_chains_at_once, Y),
    entry(states_that_emit_mixtures, Y),
    entry(regimes_of_a_level, Y),
    entry(recapture_by_scan, CAUGHT.T[1:]),
    entry(states_under_a_cause, Y),
    entry(states_one_by_one, Y),
    Entry(
        "states scaled",
        states_scaled,
        (Y,),
        log_density=scaled_density,
        note="the log of the sum is scaled here, not each term",
    ),
    entry(states_counted, Y),
    entry(states_in_two_scans, Y),
    entry(state_of_a_branch, 1.0),
    Entry("states padded", states_padded, (SERIES, MASK), log_density=padded_density, note=_MASKED),
    Entry(
        "mixture of some",
        mixture_of_some,
        (Y,),
        log_density=mixture_of_some_density,
        note=_MASKED,
    ),
    Entry(
        "states backwards",
        states_backwards,
        (Y,),
        log_density=backwards_density,
        note="numpyro's substitution gives the steps their values in the other order",
    ),
]

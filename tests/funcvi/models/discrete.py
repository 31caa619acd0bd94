"""Discrete latents, summed out: mixtures, annotators, capture and recapture, chains."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam
from numpyro.ops.indexing import Vindex

from tests.funcvi.models.entries import entry

RNG = np.random.default_rng(5)
Y = RNG.normal(size=4) * 2
LABELS = np.array([[0, 0, 1], [2, 2, 2], [1, 0, 1], [2, 1, 2]])  # by item and annotator
CAUGHT = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]])  # by animal and year
WORDS = np.array([[0, 2, 1], [1, 1, 3]])


def mixture(y):
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(3)))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with numpyro.plate("components", 3):
        means = numpyro.sample("means", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(means[z], scale), obs=y)


def mixture_of_vectors(y):
    with numpyro.plate("components", 2):
        means = numpyro.sample("means", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
        factors = numpyro.sample("factors", dist.LKJCholesky(2, 1.0))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.MultivariateNormal(means[z], scale_tril=factors[z]), obs=y)


def sticks(y):
    """A Dirichlet process, cut off."""
    with numpyro.plate("sticks", 3):
        beta = numpyro.sample("beta", dist.Beta(1.0, 2.0))
    left = jnp.cumprod(1 - beta)
    weights = jnp.append(beta, 1.0) * jnp.concatenate([jnp.ones(1), left])
    with numpyro.plate("components", 4):
        means = numpyro.sample("means", dist.Normal(0.0, 3.0))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def toy_mixture(y):
    """Chances of chances: discrete by discrete, no plate."""
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    theta = numpyro.sample("theta", dist.Uniform(0.0, jnp.ones(2)).to_event(1))
    outer = numpyro.sample("outer", dist.Bernoulli(p))
    inner = numpyro.sample("inner", dist.Bernoulli(theta[outer]))
    numpyro.sample("y", dist.Normal(2.0 * inner - outer, 1.0), obs=y)


def multinomial_annotators(labels):
    """All annotators are one."""
    with numpyro.plate("classes", 3):
        zeta = numpyro.sample("zeta", dist.Dirichlet(jnp.ones(3)))
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("items", len(labels), dim=-2):
        c = numpyro.sample("c", dist.Categorical(pi))
        with numpyro.plate("positions", 3, dim=-1):
            numpyro.sample("y", dist.Categorical(zeta[c]), obs=labels)


def dawid_skene(labels):
    who = np.arange(3)
    with numpyro.plate("annotators", 3, dim=-2), numpyro.plate("classes", 3):
        beta = numpyro.sample("beta", dist.Dirichlet(jnp.ones(3)))
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("items", len(labels), dim=-2):
        c = numpyro.sample("c", dist.Categorical(pi))
        with numpyro.plate("positions", 3, dim=-1):
            numpyro.sample("y", dist.Categorical(Vindex(beta)[who, c, :]), obs=labels)


def spammers(labels):
    """MACE: some answer by chance."""
    with numpyro.plate("annotators", 3):
        spam = numpyro.sample("spam", dist.Dirichlet(10 * jnp.ones(3)))
        trust = numpyro.sample("trust", dist.Beta(0.5, 0.5))
    with numpyro.plate("items", len(labels), dim=-2):
        c = numpyro.sample("c", dist.DiscreteUniform(0, 2))
        with numpyro.plate("positions", 3):
            s = numpyro.sample("s", dist.Bernoulli(1 - trust))
            honest = jnp.where(c[..., None] == jnp.arange(3), 1.0, 0.0)
            probs = jnp.where(s[..., None] == 0, honest, spam)
            numpyro.sample("y", dist.Categorical(probs), obs=labels)


def hierarchical_annotators(labels):
    who = np.arange(3)
    with numpyro.plate("classes", 3):
        middle = numpyro.sample("middle", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        spread = numpyro.sample("spread", dist.HalfNormal(1.0).expand([3]).to_event(1))
        centred = handlers.reparam(config={"beta": LocScaleReparam(0.0)})
        with numpyro.plate("annotators", 3, dim=-2), centred:
            beta = numpyro.sample("beta", dist.Normal(middle, spread).to_event(1))
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("items", len(labels), dim=-2):
        c = numpyro.sample("c", dist.Categorical(pi))
        with numpyro.plate("positions", 3, dim=-1):
            numpyro.sample("y", dist.Categorical(logits=Vindex(beta)[who, c, :]), obs=labels)


def item_difficulty(labels):
    with numpyro.plate("classes", 3):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        chi = numpyro.sample("chi", dist.HalfNormal(1.0).expand([2]).to_event(1))
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("items", len(labels), dim=-2):
        c = numpyro.sample("c", dist.Categorical(pi))
        theta = numpyro.sample("theta", dist.Normal(eta[c], chi[c]).to_event(1))
        theta = jnp.pad(theta, [(0, 0)] * (theta.ndim - 1) + [(0, 1)])
        with numpyro.plate("positions", 3, dim=-1):
            numpyro.sample("y", dist.Categorical(logits=theta), obs=labels)


def recapture(caught):
    """Cormack, Jolly and Seber: who is not seen may be dead. A chain for each animal."""
    survival = numpyro.sample("survival", dist.Uniform(0.0, 1.0))
    detection = numpyro.sample("detection", dist.Uniform(0.0, 1.0))
    z = 1
    with numpyro.plate("animals", len(caught)):
        for t in range(1, caught.shape[1]):
            z = numpyro.sample(f"z{t}", dist.Bernoulli(survival * z))
            numpyro.sample(f"y{t}", dist.Bernoulli(detection * z), obs=caught[:, t])


def recapture_by_year(caught):
    """Survival differs by year, in the logits, detection by animal."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("animals", len(caught)):
        detection = numpyro.sample("detection", dist.Beta(2.0, 2.0))
    z = jnp.ones(len(caught), int)
    for t in range(1, caught.shape[1]):
        effect = numpyro.sample(f"effect{t}", dist.Normal(mean, 0.5))
        survival = 1 / (1 + jnp.exp(-effect))
        with numpyro.plate("animals", len(caught)):
            z = numpyro.sample(f"z{t}", dist.Bernoulli(survival * z))
            numpyro.sample(f"y{t}", dist.Bernoulli(detection * z), obs=caught[:, t])


def occupancy(seen):
    """Sites that are occupied or not, seen or missed at each of three visits."""
    occupied = numpyro.sample("occupied", dist.Beta(1.0, 1.0))
    found = numpyro.sample("found", dist.Beta(2.0, 2.0))
    with numpyro.plate("sites", len(seen)):
        z = numpyro.sample("z", dist.Bernoulli(occupied))
        numpyro.sample("seen", dist.Binomial(3, probs=z * found), obs=seen)


def abundance(counts):
    """How many there are, up to six, of whom some are counted."""
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))
    rate = numpyro.sample("rate", dist.Gamma(3.0, 1.0))
    logits = dist.Poisson(rate).log_prob(jnp.arange(7))
    with numpyro.plate("sites", len(counts)):
        n = numpyro.sample("n", dist.Categorical(logits=logits))
        numpyro.sample("counts", dist.Binomial(n, p), obs=counts)


def hidden_states(y):
    with numpyro.plate("states", 2):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)))
        means = numpyro.sample("means", dist.Normal(0.0, 1.0))
    z = 0
    for t in range(len(y)):
        z = numpyro.sample(f"z{t}", dist.Categorical(rows[z]))
        numpyro.sample(f"y{t}", dist.Normal(means[z], 1.0), obs=y[t])


def hidden_states_semi_supervised(seen, y):
    """Some of the states are known."""
    rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)).expand([2]).to_event(1))
    means = numpyro.sample("means", dist.Normal(0.0, jnp.ones(2)).to_event(1))
    z = numpyro.sample("z0", dist.Categorical(jnp.ones(2) / 2), obs=seen[0])
    for t in range(1, len(y)):
        known = seen[t] if t < len(seen) else None
        z = numpyro.sample(f"z{t}", dist.Categorical(rows[z]), obs=known)
        numpyro.sample(f"y{t}", dist.Normal(means[z], 1.0), obs=y[t])


def two_chains(y):
    """A factorial hidden Markov model."""
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
    z = u = 0
    for t in range(len(y)):
        z = numpyro.sample(f"z{t}", dist.Bernoulli(jnp.where(z == 1, p, 0.3)))
        u = numpyro.sample(f"u{t}", dist.Bernoulli(jnp.where(u == 1, 0.8, 1 - p)))
        numpyro.sample(f"y{t}", dist.Normal(means[z, u], 1.0), obs=y[t])


def switching_autoregression(y):
    """The mean is that of a state, and of the data before."""
    slopes = numpyro.sample("slopes", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    z = numpyro.sample("z0", dist.Bernoulli(0.5))
    for t in range(1, len(y)):
        z = numpyro.sample(f"z{t}", dist.Bernoulli(jnp.where(z == 1, 0.9, 0.2)))
        numpyro.sample(f"y{t}", dist.Normal(slopes[z] * y[t - 1], 1.0), obs=y[t])


def disasters(counts):
    early, late = (numpyro.sample(n, dist.Exponential(0.5)) for n in ("early", "late"))
    switch = numpyro.sample("switch", dist.DiscreteUniform(0, len(counts) - 1))
    rate = jnp.where(jnp.arange(len(counts)) < switch[..., None], early, late)
    numpyro.sample("counts", dist.Poisson(rate).to_event(1), obs=counts)


def topics(words):
    """Latent Dirichlet allocation of few words."""
    with numpyro.plate("topics", 2):
        topic = numpyro.sample("topic", dist.Dirichlet(0.7 * jnp.ones(4)))
    with numpyro.plate("documents", len(words), dim=-2):
        share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
        with numpyro.plate("words", words.shape[1], dim=-1):
            z = numpyro.sample("z", dist.Categorical(share))
            numpyro.sample("w", dist.Categorical(topic[z]), obs=words)


def latent_classes(answers):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    yes = numpyro.sample("yes", dist.Beta(1.0, 1.0).expand([2, 3]).to_event(2))
    with numpyro.plate("people", len(answers)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("answers", dist.Bernoulli(yes[z]).to_event(1), obs=answers)


def missing_diagnoses(treated, died):
    """Discrete data that are not seen are latents."""
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    table = numpyro.sample("table", dist.Beta(1.0, 1.0).expand([2, 2]).to_event(2))
    with numpyro.plate("patients", len(died)):
        ill = numpyro.sample("ill", dist.Bernoulli(p))
        numpyro.sample("died", dist.Bernoulli(table[ill, treated]), obs=died)


def inflated_by_a_switch(counts):
    """Zero inflation, the switch a latent of its own."""
    gate = numpyro.sample("gate", dist.Beta(1.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", len(counts)):
        z = numpyro.sample("z", dist.Bernoulli(gate))
        numpyro.sample("counts", dist.Poisson(jnp.where(z == 1, 1e-6, rate)), obs=counts)


def guessing(answers):
    """Item response: who does not know may guess."""
    with numpyro.plate("items", 3, dim=-1):
        difficulty = numpyro.sample("difficulty", dist.Normal())
        guess = numpyro.sample("guess", dist.Beta(2.0, 5.0))
    with numpyro.plate("persons", 2, dim=-2):
        skill = numpyro.sample("skill", dist.Normal())
        with numpyro.plate("items", 3, dim=-1):
            knows = numpyro.sample("knows", dist.Bernoulli(logits=skill - difficulty))
            chance = jnp.where(knows == 1, 0.99, guess)
            numpyro.sample("answers", dist.Bernoulli(chance), obs=answers)


def spike_and_slab(x, y):
    """Every weight is there or not: no plate over them, a site each."""
    share = numpyro.sample("share", dist.Beta(1.0, 1.0))
    mean = 0.0
    for j in range(x.shape[1]):
        there = numpyro.sample(f"there{j}", dist.Bernoulli(share))
        weight = numpyro.sample(f"weight{j}", dist.Normal())
        mean = mean + (there * weight)[..., None] * x[:, j]
    numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)


def binomial_thinning(y):
    with numpyro.plate("rows", len(y)):
        p = numpyro.sample("p", dist.Beta(2.0, 2.0))
        n = numpyro.sample("n", dist.Binomial(3, 0.6))
        numpyro.sample("y", dist.Normal(n * p, 0.5), obs=y)


ENTRIES = [
    entry(mixture, Y),
    entry(mixture_of_vectors, RNG.normal(size=(4, 2))),
    entry(sticks, Y),
    entry(toy_mixture, 0.7),
    entry(multinomial_annotators, LABELS),
    entry(dawid_skene, LABELS),
    entry(spammers, LABELS[:2]),
    entry(hierarchical_annotators, LABELS),
    entry(recapture, CAUGHT),
    entry(recapture_by_year, CAUGHT),
    entry(occupancy, np.array([0, 2, 0, 1])),
    entry(abundance, np.array([1, 3, 0])),
    entry(hidden_states, Y),
    entry(hidden_states_semi_supervised, np.array([1, 0]), Y),
    entry(two_chains, Y),
    entry(switching_autoregression, Y),
    entry(disasters, np.array([4, 5, 3, 1, 0, 1])),
    entry(topics, WORDS),
    entry(latent_classes, np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]])),
    entry(missing_diagnoses, np.array([0, 1, 1, 0]), np.array([1, 0, 1, 1])),
    entry(inflated_by_a_switch, np.array([0, 2, 0, 5])),
    entry(guessing, np.array([[1, 0, 1], [0, 0, 1]])),
    entry(spike_and_slab, RNG.normal(size=(5, 3)), RNG.normal(size=5)),
    entry(binomial_thinning, Y),
    entry(item_difficulty, LABELS),
]

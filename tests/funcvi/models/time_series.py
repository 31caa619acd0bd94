"""Time series: loops, scans of latents, and laws of whole series."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from tests.funcvi.models.entries import Entry, entry

RNG = np.random.default_rng(2)
Y = np.cumsum(RNG.normal(0.0, 0.5, 6))
RETURNS = RNG.normal(0.0, 0.3, 6)
HARES = np.array([[30.0, 4.0], [47.0, 6.0], [70.0, 10.0], [77.0, 36.0]])


def autoregression_scan(y):
    a1, a2 = (numpyro.sample(n, dist.Normal(0.0, 0.5)) for n in ("a1", "a2"))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))

    def step(carry, y):
        one, two = carry
        y = numpyro.sample("y", dist.Normal(a1 * one + a2 * two, sigma), obs=y)
        return (y, one), None

    scan(step, (y[1], y[0]), y[2:])


def autoregression_loop(y):
    coefficients = numpyro.sample("coefficients", dist.Uniform(-1.0, jnp.ones(2)).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    for t in range(2, len(y)):
        mean = coefficients @ y[t - 2 : t]
        numpyro.sample(f"y{t}", dist.Normal(mean, sigma), obs=y[t])


def stochastic_volatility(returns):
    step = numpyro.sample("step", dist.Exponential(50.0))
    log_scale = numpyro.sample("log scale", dist.GaussianRandomWalk(step, len(returns)))
    df = numpyro.sample("df", dist.Exponential(0.1))
    numpyro.sample("returns", dist.StudentT(df, 0.0, jnp.exp(log_scale)), obs=returns)


def local_level(y):
    drift, noise = (numpyro.sample(n, dist.HalfNormal(1.0)) for n in ("drift", "noise"))

    def step(level, y):
        level = numpyro.sample("level", dist.Normal(level, drift))
        numpyro.sample("y", dist.Normal(level, noise), obs=y)
        return level, numpyro.deterministic("twice", 2 * level)

    last, _ = scan(step, 0.0, y)
    numpyro.deterministic("forecast", last)


def local_trend_reparameterised(y):
    drift = numpyro.sample("drift", dist.HalfNormal(1.0))

    def step(carry, y):
        level, trend = carry
        with handlers.reparam(config={"level": LocScaleReparam(0.0), "trend": TransformReparam()}):
            trend = numpyro.sample(
                "trend",
                dist.TransformedDistribution(
                    dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(trend, 0.3)
                ),
            )
            level = numpyro.sample("level", dist.Normal(level + trend, drift))
        numpyro.sample("y", dist.Normal(level, 0.5), obs=y)
        return (level, trend), None

    scan(step, (0.0, 0.0), y)


def global_trend(y):
    """Seasonal global trend: smoothing of levels and seasons, as in forecasting contests."""
    smooth, season_smooth = (numpyro.sample(n, dist.Beta(2.0, 2.0)) for n in ("smooth", "season"))
    power = numpyro.sample("power", dist.Uniform(-0.5, 1.0))
    slope = numpyro.sample("slope", dist.Cauchy(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfCauchy(1.0))
    df = numpyro.sample("df", dist.Uniform(2.0, 20.0))
    first = numpyro.sample("first", dist.Normal(0.0, 0.3).expand([2]).to_event(1))
    seasons = jnp.exp(first)

    def step(carry, y):
        level, seasons = carry
        mean = (level + slope * level**power) * seasons[0]
        y = numpyro.sample("y", dist.StudentT(df, mean, noise), obs=y)
        level_now = smooth * y / seasons[0] + (1 - smooth) * level
        season = season_smooth * y / level_now + (1 - season_smooth) * seasons[0]
        return (level_now, jnp.append(seasons[1:], season)), None

    scan(step, (y[0], seasons), y[1:])


def garch(returns):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    base = numpyro.sample("base", dist.HalfNormal(1.0))
    share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
    rest = numpyro.sample("rest", dist.Uniform(0.0, 1.0 - share))  # a support that moves

    def step(carry, y):
        variance, before = carry
        variance = base + share * (before - mean) ** 2 + rest * variance
        y = numpyro.sample("y", dist.Normal(mean, jnp.sqrt(variance)), obs=y)
        return (variance, y), variance

    _, variances = scan(step, (0.1, 0.0), returns)
    numpyro.deterministic("variances", variances)


def vector_autoregression(y):
    weights = numpyro.sample("weights", dist.Normal(0.0, 0.5).expand([2, 2]).to_event(2))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, 1.0))

    def step(before, y):
        law = dist.MultivariateNormal(weights @ before, scale_tril=scale[:, None] * factor)
        return numpyro.sample("y", law, obs=y), None

    scan(step, y[0], y[1:])


def linear_gaussian(y):
    """The law of all states at once."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    turn = jnp.array([[0.9, 0.2], [-0.2, 0.9]])
    states = numpyro.sample(
        "states", dist.GaussianStateSpace(len(y), turn, scale_tril=scale * jnp.eye(2))
    )
    numpyro.sample("y", dist.Normal(states[:, 0], 0.3).to_event(1), obs=y)


def stochastic_equation(y):
    speed = numpyro.sample("speed", dist.LogNormal(0.0, 0.5))

    def equation(x, _):
        return -speed * x, 0.4

    times = jnp.linspace(0.0, 1.0, len(y))
    path = numpyro.sample("path", dist.EulerMaruyama(times, equation, dist.Normal(0.0, 1.0)))
    numpyro.sample("y", dist.Normal(path, 0.2).to_event(1), obs=y)


def predators(hares):
    def rates(z, _, theta):
        u, v = z
        return jnp.stack([(theta[0] - theta[1] * v) * u, (-theta[2] + theta[3] * u) * v])

    start = numpyro.sample(
        "start", dist.LogNormal(jnp.log(jnp.array([30.0, 4.0])), 0.3).to_event(1)
    )
    low, loc = jnp.zeros(4), jnp.array([0.6, 0.03, 0.6, 0.03])
    theta = numpyro.sample(
        "theta", dist.TruncatedNormal(loc, jnp.array([0.2, 0.01, 0.2, 0.01]), low=low).to_event(1)
    )
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 0.5).expand([2]).to_event(1))
    times = jnp.arange(float(len(hares)))
    path = odeint(rates, start, times, theta, rtol=1e-9, atol=1e-9, mxstep=1000)
    numpyro.sample("y", dist.LogNormal(jnp.log(path), sigma), obs=hares)


def epidemic(cases):
    """SIR in discrete time, with a latent rate for each day."""
    base = numpyro.sample("base", dist.LogNormal(-0.5, 0.3))
    recovery = numpyro.sample("recovery", dist.Beta(2.0, 6.0))
    reported = numpyro.sample("reported", dist.Beta(5.0, 5.0))

    def day(carry, cases):
        susceptible, infected, log_rate = carry
        log_rate = numpyro.sample("log rate", dist.Normal(log_rate, 0.1))
        share = 1 - jnp.exp(-jnp.exp(log_rate) * infected / 1000.0)
        new = susceptible * share
        numpyro.sample("cases", dist.Poisson(reported * new + 1e-3), obs=cases)
        numpyro.deterministic("infected", infected)
        return (susceptible - new, infected + new - recovery * infected, log_rate), new

    scan(day, (990.0, 10.0, jnp.log(base)), cases)


def forecasts_by_station(y):
    """A level, a trend and seasons of many series: plates inside of a scan."""
    spread = numpyro.sample("spread", dist.HalfNormal(0.5))
    with numpyro.plate("seasons", 2, dim=-2), numpyro.plate("stations", 3, dim=-1):
        season = numpyro.sample("season", dist.Normal(0.0, 1.0))

    def step(carry, row):
        level, t = carry
        with numpyro.plate("stations", 3, dim=-1):
            level = numpyro.sample("level", dist.Normal(level, spread))
            numpyro.sample("y", dist.Normal(level + season[t % 2], 0.3), obs=row)
        return (level, t + 1), None

    scan(step, (jnp.zeros(3), 0), y)


def padded(y, mask):
    """Series of unequal lengths, the ends masked: free latents are normal there."""
    drift = numpyro.sample("drift", dist.HalfNormal(1.0))

    def step(level, x):
        y, mask = x
        with numpyro.plate("series", 2), handlers.mask(mask=mask):
            level = numpyro.sample("level", dist.Normal(level, drift))
            numpyro.sample("y", dist.Normal(level, 0.5), obs=y)
        return level, None

    scan(step, jnp.zeros(2), (y, mask))


PADDED = RNG.normal(size=(4, 2))
LENGTHS = np.arange(4)[:, None] < np.array([4, 2])


def padded_density(values):
    drift, level = values["drift"], values["level"]
    total = dist.HalfNormal(1.0).log_prob(drift)
    for series, length in enumerate((4, 2)):
        path = jnp.concatenate([jnp.zeros(1), level[:, series]])
        for t in range(4):
            if t < length:
                total += dist.Normal(path[t], drift).log_prob(path[t + 1])
                total += dist.Normal(path[t + 1], 0.5).log_prob(PADDED[t, series])
            else:
                total += dist.Normal(0.0, 1.0).log_prob(path[t + 1])
    return total


def backwards(y):
    """What it draws is in the order of what it scans."""
    drift = numpyro.sample("drift", dist.HalfNormal(1.0))

    def step(level, y):
        level = numpyro.sample("level", dist.LogNormal(jnp.log(level), drift))
        numpyro.sample("y", dist.Normal(level, 0.5), obs=y)
        return level, None

    scan(step, 1.0, y, reverse=True)


def backwards_density(values):
    drift, level = values["drift"], values["level"]
    later = jnp.append(level[1:], 1.0)
    total = dist.HalfNormal(1.0).log_prob(drift)
    total += dist.LogNormal(jnp.log(later), drift).log_prob(level).sum()
    return total + dist.Normal(level, 0.5).log_prob(Y).sum()


def hidden_states_forward(y):
    """A hidden Markov model whose states its own forward algorithm sums out."""
    with numpyro.plate("states", 3):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(3)))
        means = numpyro.sample("means", dist.Normal(0.0, 1.0))

    def step(alpha, y):
        alpha = logsumexp(alpha[:, None] + jnp.log(rows), 0) + dist.Normal(means, 1.0).log_prob(y)
        return alpha, None

    alpha, _ = jax.lax.scan(step, jnp.full(3, -jnp.log(3.0)), y)
    numpyro.factor("forward", logsumexp(alpha))


def branches(y):
    from numpyro.contrib.control_flow import cond

    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = cond(
        a > 0.0,
        lambda _: numpyro.sample("b", dist.Normal(a, 1.0)),
        lambda _: numpyro.sample("b", dist.Normal(-a, 2.0)),
        None,
    )
    numpyro.sample("y", dist.Normal(b, 1.0), obs=y)


def steps_with_moving_bounds(y):
    def step(low, y):
        x = numpyro.sample("x", dist.TruncatedNormal(low, 1.0, low=low))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, None

    scan(step, 0.1, y)


def circular_walk(y):
    def step(angle, y):
        angle = numpyro.sample("angle", dist.VonMises(angle, 3.0))
        numpyro.sample("y", dist.VonMises(angle, 5.0), obs=y)
        return angle, None

    scan(step, 0.0, y)


def simplex_walk(y):
    def step(p, y):
        p = numpyro.sample("p", dist.Dirichlet(10 * p + 0.5))
        numpyro.sample("y", dist.Categorical(p), obs=y)
        return p, None

    scan(step, jnp.ones(3) / 3, y)


def deaths(deaths, people):
    """Mortality by area and year: a spatial law (CAR) and a walk."""
    rho = numpyro.sample("rho", dist.Beta(2.0, 2.0))
    near = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    area = numpyro.sample("area", dist.CAR(0.0, rho, 2.0, near))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    year = numpyro.sample("year", dist.GaussianRandomWalk(scale, 2))
    odds = -2.0 + area[:, None] + year
    numpyro.sample("deaths", dist.BinomialLogits(odds, people), obs=deaths)


ENTRIES = [
    entry(autoregression_scan, Y),
    entry(autoregression_loop, Y),
    entry(stochastic_volatility, RETURNS),
    entry(local_level, Y),
    entry(local_trend_reparameterised, Y),
    entry(global_trend, np.abs(Y) + 1),
    entry(garch, RETURNS),
    entry(vector_autoregression, RNG.normal(size=(5, 2))),
    entry(linear_gaussian, Y),
    entry(stochastic_equation, Y),
    entry(predators, HARES),
    entry(epidemic, np.array([3, 4, 9, 12, 20])),
    entry(forecasts_by_station, RNG.normal(size=(5, 3))),
    Entry(
        "padded",
        padded,
        (PADDED, LENGTHS),
        log_density=padded_density,
        note="numpyro gives masked latents no density, and keeps the log determinant of none",
    ),
    Entry(
        "backwards",
        backwards,
        (Y,),
        log_density=backwards_density,
        note="numpyro's substitution gives the steps their latents in the other order",
    ),
    entry(hidden_states_forward, Y),
    entry(branches, Y[0]),
    entry(steps_with_moving_bounds, Y),
    entry(circular_walk, Y),
    entry(simplex_walk, np.array([0, 2, 1])),
    entry(deaths, np.array([[2, 3], [1, 0], [4, 4]]), np.full((3, 2), 20)),
]

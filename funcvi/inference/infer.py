"""A posterior and whether to trust it, from one call."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from funcvi._checks import check_key
from funcvi._jax import is_concrete
from funcvi._types import Key
from funcvi.diagnostics import diagnosis_of, psis
from funcvi.guides import Posterior
from funcvi.guides.contract import check_target
from funcvi.inference.batch_and_match import (
    CLIMB_STEPS,
    climb_and_match,
    log_density_of,
    posterior_of,
)
from funcvi.inference.chains import Chains, chains
from funcvi.inference.empirical import EmpiricalPosterior, resampled
from funcvi.inference.facts import Facts
from funcvi.inference.messages import (
    IMPROPER,
    MODES,
    NORMAL,
    OUTSIDE,
    POOR,
    TRACED,
    WEIGHTED,
    say_to_stderr,
)
from funcvi.inference.paths import PER_STEP, Climbs, Normal
from funcvi.inference.report import Report, Rung, Trust
from funcvi.mixing import Mixing, energy_mixing, mixing
from funcvi.programs import run
from funcvi.sampling import noise
from funcvi.targets import Target

__all__ = ["infer"]

_CLIMBS, _MATCHES, _BATCH = 8, 300, 64
_DRAWS, _NUMBERS = 40_000, 4_000_000  # of the normal, to judge it by and to weight; in all
_RESAMPLED = 10_000
_CHAINS, _WARMUP, _LENGTH, _EXTENSIONS = 4, 500, 1000, 2
_AT_A_TIME = 500
_ENOUGH = 400  # effective draws, in every coordinate
_MIXED, _APART = 1.01, 1.1  # R-hat
_LIVELY = 0.6  # E-BFMI; 0.3 is the usual alarm, at which much is left out
_NEAR, _FAR = 30.0, 3000.0  # standard deviations
_SLIGHT, _DEEP = 0.05, 30.0  # nats: of a fall that rounding makes, or after which a tail is nothing
_ENDLESS = 1e10  # a standard deviation of nothing
_ALIKE = 0.05  # of a standard deviation, between a normal and its weighted draws
_OUTSIDE, _NOTHING = 0.001, 0.999  # of the normal's draws, without a finite log density
_POOR = 0.7  # k-hat, above which a normal alone is no posterior
_METHODS = ("auto", "variational")


class _Fitted(NamedTuple):
    """The normal approximation, draws of it, and log densities of both sides there.

    Of its principal axes, one a column, ``falls`` says how much faster the log density falls far
    out than one over the distance, on the side where it falls less.
    """

    normal: Normal
    climbs: Climbs
    draws: Array
    log_p: Array
    log_q: Array
    axes: Array
    falls: Array


def infer(
    target: Target,
    *,
    key: Key,
    method: str = "auto",
    budget: float = math.inf,
    progress: bool = False,
) -> tuple[Posterior | EmpiricalPosterior, Report]:
    """A posterior, and a report that says whether it can be trusted.

    It climbs a ladder as far as it must: a normal approximation by batch and match
    (:func:`fv.batch_and_match`), judged by its importance ratios; its draws weighted by these
    ratios, where they can be (Pareto smoothed, Vehtari et al. 2024, arXiv:1507.02646); and chains
    of the No-U-Turn sampler in the normal's own coordinates, until they agree.

    Args:
        target: made by :func:`fv.target`; its log density must not be random.
        key: a key.
        method: "auto", or "variational" for no chains.
        budget: seconds of wall time, after which no further rung is begun.
        progress: print a line for each rung to the standard error stream: what it found, and what
            follows from it.

    Returns:
        A posterior: that of ``fv.full_rank(target)`` where it is as good as its weighted draws,
        else an :class:`EmpiricalPosterior` of draws; and a :class:`Report`.

    Raises:
        TypeError: this is no target.
        ValueError: the log density is random, or nowhere finite; the method is unknown, or the
            budget not positive.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Normal(3.0, 0.5).log_prob(x["a"]),
        ...               supports={"a": constraints.real})
        >>> posterior, report = fv.infer(t, key=jax.random.key(0))
        >>> str(report.verdict), str(report.rung)
        ('reliable', 'normal')
    """
    check_target(target)
    check_key(key, "fv.batch_and_match(target, key=key)")
    target.check_exact("fv.infer")
    target.check_known("fv.infer")
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}, got {method!r}.")
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget > 0:
        raise ValueError(f"budget must be a positive number of seconds, got {budget!r}.")
    if progress not in (True, False):
        raise TypeError(f"progress must be True or False, got {progress!r}.")
    began = time.monotonic()
    if not is_concrete(key):
        raise TypeError(TRACED)
    start_key, fit_key, weight_key, chain_key = jax.random.split(key, 4)
    starts = target.ravel(target.start(start_key, (_CLIMBS,), mark_failed=True))
    if not is_concrete(starts):
        raise TypeError(TRACED)
    found: _Fitted = run(_fit(target), starts, fit_key)
    diagnosis = diagnosis_of(np.asarray(found.log_p), np.asarray(found.log_q))
    spent = _CLIMBS * CLIMB_STEPS * PER_STEP + _MATCHES * _BATCH + len(found.draws)
    log_weights, size = _weights(found)
    share = float(np.mean(~np.isfinite(found.log_p)))
    outside = OUTSIDE.format(100 * share, _why(target, found)) if share > _OUTSIDE else ""
    say = say_to_stderr if progress else (lambda line: None)
    facts = Facts(target, diagnosis, _CLIMBS, spent, began, size, outside, say)
    if endless := _endless(target, found):
        return posterior_of(target, found.normal), facts.normal(
            Trust.failed,
            IMPROPER.format(", ".join(endless)),
            "the log density does not fall",
            endless,
        )
    modes = _other_modes(found)
    if diagnosis.reliable and size > 2 * _ENOUGH and not len(modes):
        draws = resampled(found.draws, jnp.asarray(log_weights), weight_key, _RESAMPLED)
        if _close(found, draws):
            report = facts.normal(Trust.reliable, NORMAL, "weights change next to nothing")
            return posterior_of(target, found.normal), report
        facts.say_normal("weights correct it", Rung.importance)
        report = facts.report(Trust.reliable, Rung.importance, WEIGHTED, size)
        say(f"importance: {size:.0f} effective draws → {report.verdict}")
        return EmpiricalPosterior(target, draws), report
    why = "weights cannot correct it"
    if diagnosis.reliable:
        why = "other modes" if len(modes) else "few effective draws"
    late = time.monotonic() - began > budget
    if method == "variational" or late or share > _NOTHING:
        message = outside or (
            MODES
            if diagnosis.reliable and len(modes)
            else f"{POOR} k-hat is {diagnosis.k_hat:.2f}."
        )
        poor = diagnosis.verdict == "wrong" or diagnosis.k_hat > _POOR
        trust = Trust.failed if poor else Trust.with_care
        why += ", and the budget is spent" if late else ""
        report = facts.normal(trust, message, why, tuple(target.shapes))
        return posterior_of(target, found.normal), report
    facts.say_normal(why, Rung.chains)
    return _by_chains(found, modes, facts, chain_key, budget)


def _fit(target: Target) -> Callable[[Array, Key], _Fitted]:
    log_density = log_density_of(target)
    count = max(_RESAMPLED, min(_DRAWS, _NUMBERS // target.size))

    def found(starts: Array, key: Key) -> _Fitted:
        climb_key, match_key, draw_key = noise.split(key, 3)
        normal, climbs = climb_and_match(
            target, starts, climb_key, match_key, num_steps=_MATCHES, num_samples=_BATCH
        )
        white = noise.normal(draw_key, (count, target.size), starts.dtype)
        draws = normal.loc + white @ normal.factor.T
        _, log_det = jnp.linalg.slogdet(normal.factor)
        constant = log_det + target.size * math.log(2 * math.pi) / 2
        log_q = -jnp.sum(white**2, axis=1) / 2 - constant
        axes, spreads, _ = jnp.linalg.svd(normal.factor)
        axes = axes * spreads
        lengths = jnp.array([_NEAR, -_NEAR, _FAR, -_FAR], axes.dtype)
        far = normal.loc + jnp.concatenate(lengths[:, None, None] * axes.T)
        places = jnp.concatenate([draws, normal.loc[None], far])
        log_p, middle, at_far = jnp.split(_values(log_density, places), [count, count + 1])
        falls = _falls(middle, at_far.reshape(2, 2, target.size), axes)
        return _Fitted(normal, climbs, draws, log_p, log_q, axes, falls)

    return found


def _values(log_density: Callable[[Array], Array], places: Array) -> Array:
    """At all places, some at a time; compiled once, where ``lax.map`` compiles a remainder too."""
    count, size = places.shape
    rows = -(-count // _AT_A_TIME)
    filled = jnp.resize(places, (rows, _AT_A_TIME, size))
    return jax.lax.map(jax.vmap(log_density), filled).reshape(-1)[:count]


def _falls(middle: Array, far: Array, axes: Array) -> Array:
    """By how much more than the logarithm of the distance, from the middle or from near.

    Args:
        middle: the log density there.
        far: near and far from it, on both sides of each axis, (distance, side, axis).
        axes: as columns.
    """
    near, far = far
    deep = middle - far - math.log(_FAR) - _DEEP
    fall = jnp.maximum(near - far - math.log(_FAR / _NEAR) - _SLIGHT, deep)
    fall = jnp.where(jnp.isfinite(near) & jnp.isfinite(far), fall, jnp.inf).min(axis=0)
    return jnp.where(jnp.linalg.norm(axes, axis=0) < _ENDLESS, fall, -jnp.inf)


def _weights(found: _Fitted) -> tuple[np.ndarray, float]:
    """Smoothed log weights of the normal's draws, and their effective number; NaN for none."""
    ratio = np.asarray(found.log_p, np.float64) - np.asarray(found.log_q)
    if not np.all(np.isfinite(ratio)):
        return ratio, math.nan
    log_weights, _ = psis(ratio)
    return log_weights, float(1 / np.sum(np.exp(2 * log_weights)))


def _why(target: Target, found: _Fitted) -> str:
    """The site to blame for a log density that is not finite, in brackets."""
    first = int(np.argmin(np.isfinite(found.log_p)))
    words = target.faults and target.faults(target.unravel(found.draws[first]))
    return f" ({words})" if words else ""


def _close(fitted: _Fitted, draws: Array) -> bool:
    """Whether weights change means and spreads of all coordinates by next to nothing."""
    before, after = np.asarray(fitted.draws), np.asarray(draws)
    spread = after.std(0)
    moved = np.abs(before.mean(0) - after.mean(0)) / spread
    wider = np.abs(np.log(before.std(0) / spread))
    return bool(moved.max() < _ALIKE and wider.max() < _ALIKE)


def _endless(target: Target, found: _Fitted) -> tuple[str, ...]:
    """The sites that a principal axis is mostly of, along which the log density hardly falls.

    A density of finite mass falls faster than one over the distance. What is not finite out there
    is taken to have fallen.
    """
    flat = np.asarray(found.falls) <= 0
    axes = np.abs(np.asarray(found.axes))
    largest = axes >= 0.5 * axes.max(axis=0)
    sites = target.unravel(jnp.asarray((largest & flat).any(axis=1)))
    return tuple(name for name, entries in sites.items() if bool(jnp.any(entries)))


def _other_modes(fitted: _Fitted) -> np.ndarray:
    """Where climbs ended elsewhere, with ELBOs that leave those places much of the mass."""
    elbo = np.asarray(fitted.climbs.elbo)
    away = np.asarray(fitted.climbs.normal.loc - fitted.normal.loc)
    distance = np.linalg.norm(np.linalg.pinv(np.asarray(fitted.normal.factor)) @ away.T, axis=0)
    far = distance > 4 * math.sqrt(away.shape[1]) + 3
    return np.asarray(fitted.climbs.normal.loc)[far & (elbo > elbo.max() - 5)]


def _by_chains(
    fitted: _Fitted, modes: np.ndarray, facts: Facts, key: Key, budget: float
) -> tuple[EmpiricalPosterior, Report]:
    target = facts.target
    start_key, *keys = jax.random.split(key, 2 + _EXTENSIONS)
    starts = _starts(fitted, modes, start_key)

    log_density = log_density_of(target)

    def sampled(normal: Normal, starts: Array, key: Key) -> Chains:
        return chains(log_density, normal, starts, key, _WARMUP, _LENGTH)

    normal, kept, gradients = fitted.normal, list[Chains](), 0
    for count, one_key in enumerate(keys):
        kept.append(run(sampled, normal, starts, one_key))
        gradients += int(kept[-1].num_gradients)
        draws = np.concatenate([x.draws for x in kept], axis=1)
        mixed = mixing(draws)
        late = time.monotonic() - facts.began > budget
        line = (
            f"chains: {_CHAINS} of {draws.shape[1]} draws, R-hat {np.max(mixed.r_hat):.3f}, "
            f"{np.min(mixed.effective):.0f} effective draws"
        )
        if _agree(mixed).all() or late or count == _EXTENSIONS:
            break
        facts.say(f"{line} → more draws")
        starts = kept[-1].draws[:, -1]
        if np.max(mixed.r_hat) > _APART:  # not there yet: from where they are, as they lie there
            normal, kept = _normal_of(np.asarray(kept[-1].draws), normal), []
    slowest = min(energy_mixing(np.asarray(x.energy)) for x in kept)
    posterior = EmpiricalPosterior(
        target, jnp.asarray(draws.reshape(-1, target.size)), num_chains=_CHAINS
    )
    report = _judged(mixed, slowest, facts, gradients)
    facts.say(f"{line} → {report.verdict}")
    return posterior, report


def _starts(fitted: _Fitted, modes: np.ndarray, key: Key) -> Array:
    """Draws by their weights, cut so that no one of them is all, and the other modes."""
    ratio = np.asarray(fitted.log_p, np.float64) - np.asarray(fitted.log_q)
    ratio = np.where(np.isfinite(ratio), ratio, -np.inf)
    cut = jnp.asarray(np.minimum(ratio, np.quantile(ratio, 0.99, method="higher")))
    starts = resampled(fitted.draws, cut, key, _CHAINS)
    places = modes[: _CHAINS - 1]
    return starts.at[: len(places)].set(places) if len(places) else starts


def _normal_of(draws: np.ndarray, before: Normal) -> Normal:
    """With the mean and covariance of draws; as before, if that has no factor."""
    flat = draws.reshape(-1, draws.shape[-1])
    covariance = np.atleast_2d(np.cov(flat.T))
    shrunk = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    factor = jnp.linalg.cholesky(jnp.asarray(shrunk, flat.dtype))
    if not bool(jnp.all(jnp.isfinite(factor))):
        return before
    return Normal(jnp.asarray(flat.mean(0)), factor)


def _agree(mixed: Mixing) -> np.ndarray:
    """By coordinate."""
    return np.asarray((mixed.r_hat < _MIXED) & (mixed.effective > _ENOUGH))


def _judged(mixed: Mixing, energy: float, facts: Facts, gradients: int) -> Report:
    r_hat, size = float(np.max(mixed.r_hat)), float(np.min(mixed.effective))
    entries = facts.target.unravel(jnp.asarray(~_agree(mixed)))
    careful = tuple(name for name, bad in entries.items() if bool(jnp.any(bad)))
    if careful and not r_hat < _APART:
        trust = Trust.failed
        message = (
            f"the chains have not mixed (R-hat {r_hat:.2f}; {', '.join(careful)}): several modes "
            "(order what is exchangeable, as the means of a mixture; fv.mixture covers a few), or "
            "scales that need a non-centred parameterisation."
        )
    elif careful:
        trust = Trust.with_care
        message = (
            f"few effective draws ({size:.0f}) in {', '.join(careful)}: their tails are rough. A "
            "non-centred parameterisation may help."
        )
    elif energy < _LIVELY:
        trust, careful = Trust.with_care, tuple(facts.target.shapes)
        message = (
            f"the chains agree, but their energies move slowly (E-BFMI {energy:.2f}): a tail or a "
            "neck may be left out. A non-centred parameterisation may help."
        )
    else:
        trust, message = Trust.reliable, f"{_CHAINS} chains agree in every coordinate."
    if facts.outside:
        trust = Trust.failed if trust == Trust.failed else Trust.with_care
        message, careful = facts.outside, careful or tuple(facts.target.shapes)
    return facts.report(trust, Rung.chains, message, size, r_hat, careful, gradients)

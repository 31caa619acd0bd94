"""A normal approximation with nothing to tune: several climbs, then batch and match."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import numpyro.distributions as dist
from jax import Array

from funcvi._checks import check_count, check_key
from funcvi._types import Key, Params
from funcvi.families import Family
from funcvi.guides import Posterior, full_rank
from funcvi.guides.contract import check_target
from funcvi.guides.laplace import triangular
from funcvi.inference.matching import matched
from funcvi.inference.paths import Climbs, Normal, best_of_climbs
from funcvi.programs import run
from funcvi.targets import Target

__all__ = ["CLIMB_STEPS", "batch_and_match", "climb_and_match", "log_density_of", "posterior_of"]

CLIMB_STEPS = 40


def batch_and_match(
    target: Target,
    *,
    key: Key,
    num_steps: int = 300,
    num_samples: int = 64,
    num_starts: int = 8,
) -> Posterior:
    """The normal posterior whose scores are the target's, without step sizes or schedules.

    It starts at the best normal along ``num_starts`` climbs (Pathfinder, Zhang et al. 2022,
    jmlr.org/papers/v23/21-0889.html) and takes closed-form steps from there (Cai et al. 2024,
    arXiv:2402.14758). Where the posterior is close to a normal distribution on unconstrained space
    it is there in seconds, whatever the scales of its sites; ``fv.diagnose`` tells.

    Under ``jax.vmap`` over data and keys, ``lambda y, key: fv.batch_and_match(fv.target(model, y),
    key=key)``, it returns a batch of posteriors, which ``fv.diagnose_each`` judges one by one.
    Where none of the starts has a finite log density, params are NaN there (outside of jit and vmap
    that is a ValueError).

    Args:
        target: made by :func:`fv.target`; its log density must not be random.
        key: a key.
        num_steps: closed-form steps.
        num_samples: scores in each step, an even number.
        num_starts: climbs, and the places where they start.

    Returns:
        A :class:`Posterior` of ``fv.full_rank(target)``, whose params can be fitted further.

    Raises:
        TypeError: this is no target.
        ValueError: the log density is random, or nowhere finite; ``num_samples`` is odd, or another
            number not positive.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Normal(3e4, 100.0).log_prob(x["a"]),
        ...               supports={"a": constraints.real})
        >>> posterior = fv.batch_and_match(t, key=jax.random.key(0))
        >>> q = posterior.marginals()["a"]
        >>> round(float(q.loc), -1), round(float(q.scale))
        (30000.0, 100)
    """
    check_target(target)
    check_key(key, "fv.batch_and_match(target, key=key)")
    target.check_exact("fv.batch_and_match")
    target.check_known("fv.batch_and_match")
    for name, number in (("num_steps", num_steps), ("num_starts", num_starts)):
        check_count(number, name)
    if isinstance(num_samples, bool) or not isinstance(num_samples, (int, np.integer)):
        raise TypeError(f"num_samples must be an even integer, got {num_samples!r}.")
    if num_samples < 2 or num_samples % 2:
        raise ValueError(f"num_samples must be even and positive, got {num_samples}.")
    start_key, climb_key, match_key = jax.random.split(key, 3)
    starts = target.ravel(target.start(start_key, (num_starts,), mark_failed=True))

    found = partial(climb_and_match, target, num_steps=num_steps, num_samples=num_samples)
    return posterior_of(target, run(lambda *a: found(*a)[0], starts, climb_key, match_key))


def log_density_of(target: Target) -> Callable[[Array], Array]:
    """The log density as a function of a vector (size,)."""
    return lambda x: target.log_density(target.unravel(x))


def climb_and_match(
    target: Target,
    starts: Array,
    climb_key: Key,
    match_key: Key,
    *,
    num_steps: int = 300,
    num_samples: int = 64,
) -> tuple[Normal, Climbs]:
    """The matched normal, and the climbs that it began at the best of."""
    log_density = log_density_of(target)
    first, climbs = best_of_climbs(log_density, starts, climb_key, CLIMB_STEPS)
    return matched(log_density, first, match_key, num_steps, num_samples), climbs


def posterior_of(target: Target, normal: Normal) -> Posterior:
    """The posterior of ``fv.full_rank`` that is this normal distribution."""
    guide = full_rank(target)
    of = guide.family
    assert isinstance(of, Family)

    def params(normal: Normal) -> Params:
        scale_tril = triangular(normal.factor)
        return of.inverse(dist.MultivariateNormal(normal.loc, scale_tril=scale_tril))

    return guide(run(params, normal))

"""Whether an approximate posterior can be trusted: ELBO with its error, and Pareto k-hat."""

from dataclasses import dataclass
from enum import StrEnum

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from funcvi._checks import check_key
from funcvi._jax import is_concrete
from funcvi._types import Key
from funcvi.guides import Posterior
from funcvi.pareto import Tail, pareto_k_hat, psis, tail_of
from funcvi.programs import run

__all__ = [
    "Diagnosis",
    "Verdict",
    "diagnose",
    "diagnose_each",
    "diagnosis_of",
    "pareto_k_hat",
    "psis",
]

# Standard errors that k-hat must be away from a threshold. Normal tails: 0.6 % on either side.
_ERRORS = 2.5
_MOST_DRAWS = 1_000_000


class Verdict(StrEnum):
    """Whether importance weights can correct a posterior; compares equal to its name."""

    good = "good"
    usable = "usable"
    undecided = "undecided"
    unreliable = "unreliable"
    wrong = "wrong"


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; printing it says what it means.

    Attributes:
        elbo: estimate of the evidence lower bound, nats.
        elbo_standard_error: its Monte Carlo standard error, nats.
        k_hat: Pareto shape of the importance ratios p / q.
        k_hat_standard_error: its standard error; zero where all ratios are equal, NaN where a few
            draws carry all the weight.
        num_samples: draws that these rest on.
        verdict: on which side of the thresholds k_hat is, its error taken into account; else
            ``undecided``.
        message: the meaning, in a sentence.
    """

    elbo: float
    elbo_standard_error: float
    k_hat: float
    k_hat_standard_error: float
    num_samples: int
    verdict: Verdict
    message: str

    @property
    def reliable(self) -> bool:
        """Whether k_hat is below the threshold for this many draws, beyond its error."""
        return self.verdict in (Verdict.good, Verdict.usable)

    def __str__(self) -> str:
        return (
            f"ELBO   {self.elbo:.2f} +- {self.elbo_standard_error:.2g} nats "
            f"({self.num_samples} draws)\n"
            f"k-hat  {self.k_hat:.2f} +- {self.k_hat_standard_error:.2f}: {self.message}"
        )


def diagnose(posterior: Posterior, *, key: Key, num_samples: int = 4000) -> Diagnosis:
    """Compare an approximate posterior with its target.

    The ELBO is a mean over draws. k-hat is the shape of a generalised Pareto fitted to the largest
    importance ratios: below min(1 - 1 / log10(draws), 0.7) importance weights, and so expectations
    under the posterior, can be corrected; above, they cannot. Yao et al. 2018, arXiv:1802.02538;
    Vehtari et al. 2024, arXiv:1507.02646.

    k-hat varies with the key, by 0.12 or so with 4000 draws. So it counts as below or above a
    threshold only if it would be there by chance for at most one key in a hundred, whatever the
    true shape; else the verdict is ``undecided``, and says how many draws would do.

    Args:
        posterior: ``guide(params)``.
        key: a key, other than the fit's.
        num_samples: draws; at least 100.

    Returns:
        A :class:`Diagnosis`.

    Raises:
        TypeError: this is no posterior.
        ValueError: too few draws; the target's log density is random (a subsampling plate); or a
            network's posterior, whose target is the prior alone.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Normal(0.0, 1.0).log_prob(x["a"]),
        ...               supports={"a": constraints.real})
        >>> guide = fv.mean_field(t, scale=1.0, loc={"a": 0.0})
        >>> found = fv.diagnose(guide(guide.init(jax.random.key(1))), key=jax.random.key(0))
        >>> abs(round(found.elbo, 2)), found.reliable
        (0.0, True)
    """
    _check(posterior, key, num_samples, "fv.diagnose")
    log_p, log_q = _log_densities(posterior, key, num_samples)
    return diagnosis_of(np.asarray(log_p), np.asarray(log_q))


def diagnose_each(posteriors: Posterior, *, key: Key, num_samples: int = 4000) -> list[Diagnosis]:
    """:func:`diagnose` of each posterior of a batch, as ``jax.vmap`` makes them; one program.

    One that has failed is among them: its verdict is ``wrong``, its ELBO -inf.

    Args:
        posteriors: a posterior whose params have one leading axis, and its data too, if it was made
            inside ``jax.vmap`` from a model at traced data.
        key: a key, other than the posteriors' own.
        num_samples: draws of each; at least 100.

    Returns:
        A :class:`Diagnosis` for each.

    Raises:
        TypeError: this is no posterior, or a traced one.
        ValueError: it is no batch; or as in :func:`diagnose`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> def posterior(y, key):
        ...     return fv.batch_and_match(fv.target(model, y), key=key)
        >>> ys = jnp.array([[0.3, 0.1], [2.0, 1.1], [0.0, jnp.nan]])
        >>> posteriors = jax.vmap(posterior)(ys, jax.random.split(jax.random.key(0), 3))
        >>> [str(d.verdict) for d in fv.diagnose_each(posteriors, key=jax.random.key(1))]
        ['good', 'good', 'wrong']
    """
    _check(posteriors, key, num_samples, "fv.diagnose_each")
    leaves, tree = jax.tree.flatten(posteriors)
    counts = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(counts) != 1 or counts == {()}:
        raise ValueError(
            "expected a batch of posteriors, whose params have one leading axis more, got arrays "
            f"of shapes {[jnp.shape(leaf) for leaf in leaves]}: fv.diagnose takes a single one."
        )
    ((count,),) = counts

    def each(leaves: list[Array], keys: Key) -> tuple[Array, Array]:
        def one(inputs: tuple[list[Array], Key]) -> tuple[Array, Array]:
            leaves, one_key = inputs
            return _log_densities(jax.tree.unflatten(tree, leaves), one_key, num_samples)

        return jax.lax.map(one, (leaves, keys))

    log_p, log_q = run(each, leaves, jax.random.split(key, count))
    return [diagnosis_of(*pair) for pair in zip(np.asarray(log_p), np.asarray(log_q), strict=True)]


def _check(posterior: object, key: Key, num_samples: int, reader: str) -> None:
    if num_samples < 100:
        raise ValueError(f"k-hat needs at least 100 draws, got num_samples={num_samples}.")
    if not isinstance(posterior, Posterior):
        remedy = "pass guide(fit.params) alone, which knows its target"
        if hasattr(posterior, "num_chains"):  # an EmpiricalPosterior, which stands on this room
            remedy = "it is draws, without a density to judge; the report of fv.infer judges them"
        raise TypeError(f"expected a posterior, got {type(posterior).__name__}: {remedy}.")
    if not is_concrete((posterior, key)):
        raise TypeError(
            f"{reader} reports on the host, and cannot be called under jit, vmap or grad: return "
            "the posterior from there, a pytree, and call fv.diagnose_each on a batch of them."
        )
    if posterior.guide.target.is_prior:
        raise ValueError(
            "diagnose: this posterior's target is the prior of a network's weights alone; the data "
            "are in the network's loss. Judge it by predictions on held-out data (fv.networks), or "
            "diagnose fv.Guide(target, net.guide.init, net.guide.family)(params['random']), target "
            "being fv.target(log_joint, supports=...) of these weights and the data."
        )
    check_key(key)


def _log_densities(posterior: Posterior, key: Key, num_samples: int) -> tuple[Array, Array]:
    """Of the target and of the posterior, at draws of the latter."""
    target = posterior.target
    target.check_exact("fv.diagnose")
    model_key, draw_key = jax.random.split(key)
    z, log_q = posterior.sample_unconstrained(draw_key, (num_samples,))
    return jax.vmap(target.log_density)(z, jax.random.split(model_key, num_samples)), log_q


def diagnosis_of(log_p: np.ndarray, log_q: np.ndarray) -> Diagnosis:
    """Of the log densities of target and approximation at draws of the latter, each (draws,)."""
    num_samples = len(log_p)
    log_ratio = np.asarray(log_p, np.float64) - log_q
    bad = int((~np.isfinite(log_ratio)).sum())
    if bad:
        elbo, error, k_hat, k_error = float("-inf"), float("nan"), float("inf"), float("nan")
        verdict = Verdict.wrong
        message = (
            f"{bad} of {num_samples} draws have a non-finite log density: the posterior reaches "
            "where the target has none, or float32 overflows there (try jax_enable_x64)."
        )
    else:
        elbo = float(log_ratio.mean())
        error = float(log_ratio.std(ddof=1) / np.sqrt(num_samples))
        rounding = 64 * float(np.finfo(log_q.dtype).eps * np.abs(log_q).max())
        tail = tail_of(log_ratio * (np.ptp(log_ratio) > rounding))
        k_hat, k_error = tail.k_hat, tail.standard_error
        verdict = _verdict(tail, num_samples)
        message = _meaning(verdict, tail, num_samples)
    return Diagnosis(elbo, error, k_hat, k_error, num_samples, verdict, message)


def _threshold(num_samples: float) -> float:
    return float(min(1 - 1 / np.log10(num_samples), 0.7))


def _verdict(tail: Tail, num_samples: int) -> Verdict:
    threshold = _threshold(num_samples)
    if _errors_above(tail, threshold) > _ERRORS:
        return Verdict.wrong if _errors_above(tail, 1.0) > _ERRORS else Verdict.unreliable
    if _errors_above(tail, threshold) < -_ERRORS:
        return Verdict.good if _errors_above(tail, 0.5) < -_ERRORS else Verdict.usable
    return Verdict.undecided


def _errors_above(tail: Tail, threshold: float) -> float:
    """By how many of its standard errors there the shape exceeds a threshold: a score test."""
    if not np.isfinite(tail.shape):
        return tail.shape
    return (tail.shape - threshold) / tail.error_at(threshold)


def _draws_to_decide(tail: Tail, num_samples: int) -> str:
    """For the shape to be beyond its error from the threshold, if more draws leave it there."""
    draws = float(num_samples)
    while draws < _MOST_DRAWS:
        draws *= 1.1
        size = int(3 * draws**0.5)
        larger = Tail(tail.shape, tail.scale, tail.cutoff, size)
        if _verdict(larger, int(draws)) != Verdict.undecided:
            return f"{float(f'{draws:.1e}'):_.0f}"
    return f"{_MOST_DRAWS:_} or more"


def _meaning(verdict: Verdict, tail: Tail, num_samples: int) -> str:
    threshold = _threshold(num_samples)
    match verdict:
        case Verdict.good:
            return "good; the approximation is close, its importance weights have finite variance."
        case Verdict.usable:
            return "usable; correct expectations with importance weights where they matter."
        case Verdict.undecided:
            return (
                f"undecided; the threshold {threshold:.2f} is within its error. If k-hat stays "
                f"there, num_samples={_draws_to_decide(tail, num_samples)} would decide."
            )
        case Verdict.unreliable:
            return (
                f"unreliable (above {threshold:.2f}); variances are likely too small. Train "
                "longer, or use a richer guide."
            )
        case Verdict.wrong:
            return (
                "wrong; the posterior misses much of the target's mass. Its means and variances "
                "cannot be trusted: train longer, reparameterise the model, or use a richer guide."
            )

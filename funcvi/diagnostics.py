"""Whether an approximate posterior can be trusted: ELBO with its error, and Pareto k-hat."""

from dataclasses import dataclass

import jax
import numpy as np

from funcvi._checks import check_key
from funcvi._types import Key
from funcvi.guides import Posterior

__all__ = ["Diagnosis", "diagnose", "pareto_k_hat"]


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; printing it says what it means.

    Attributes:
        elbo: estimate of the evidence lower bound, nats.
        elbo_standard_error: its Monte Carlo standard error, nats.
        k_hat: Pareto shape of the importance ratios p / q.
        num_samples: draws that these rest on.
        reliable: whether k_hat is below the threshold for this many draws.
        message: the meaning, in a sentence.
    """

    elbo: float
    elbo_standard_error: float
    k_hat: float
    num_samples: int
    reliable: bool
    message: str

    def __str__(self) -> str:
        return (
            f"ELBO   {self.elbo:.2f} +- {self.elbo_standard_error:.2f} nats "
            f"({self.num_samples} draws)\n"
            f"k-hat  {self.k_hat:.2f}: {self.message}"
        )


def diagnose(posterior: Posterior, *, key: Key, num_samples: int = 4000) -> Diagnosis:
    """Compare an approximate posterior with its target.

    The ELBO is a mean over draws. k-hat is the shape of a generalised Pareto fitted to the largest
    importance ratios: below min(1 - 1 / log10(draws), 0.7) importance weights, and so expectations
    under the posterior, can be corrected; above, they cannot. Yao et al. 2018, arXiv:1802.02538;
    Vehtari et al. 2024, arXiv:1507.02646.

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
    if num_samples < 100:
        raise ValueError(f"k-hat needs at least 100 draws, got num_samples={num_samples}.")
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"expected a posterior, got {type(posterior).__name__}: pass guide(fit.params) alone, "
            "which knows its target."
        )
    if posterior.target.is_prior:
        raise ValueError(
            "diagnose: this posterior's target is the prior of a network's weights alone; the data "
            "are in the network's loss. Judge it by predictions on held-out data (fv.networks), or "
            "diagnose fv.Guide(target, net.guide.init, net.guide.family)(params['random']), target "
            "being fv.target(log_joint, supports=...) of these weights and the data."
        )
    check_key(key)
    posterior.target.check_exact("fv.diagnose")
    model_key, draw_key = jax.random.split(key)
    z, log_q = posterior.sample_unconstrained(draw_key, (num_samples,))
    log_p = jax.vmap(posterior.target.log_density)(z, jax.random.split(model_key, num_samples))
    log_ratio = np.asarray(log_p - log_q, np.float64)
    threshold = float(min(1 - 1 / np.log10(num_samples), 0.7))
    bad = int((~np.isfinite(log_ratio)).sum())
    if bad:
        elbo, error, k_hat = float("-inf"), float("nan"), float("inf")
        message = (
            f"{bad} of {num_samples} draws have a non-finite log density: the posterior reaches "
            "where the target has none, or float32 overflows there (try jax_enable_x64)."
        )
    else:
        elbo = float(log_ratio.mean())
        error = float(log_ratio.std(ddof=1) / np.sqrt(num_samples))
        k_hat = pareto_k_hat(log_ratio)
        message = _meaning(k_hat, threshold)
    return Diagnosis(elbo, error, k_hat, num_samples, k_hat < threshold, message)


def _meaning(k_hat: float, threshold: float) -> str:
    if k_hat < 0.5:
        return "good; the approximation is close, its importance weights have finite variance."
    if k_hat < threshold:
        return "usable; correct expectations with importance weights where they matter."
    if k_hat < 1:
        return (
            f"unreliable (above {threshold:.2f}); variances are likely too small. Train longer, or "
            "use a richer guide."
        )
    return (
        "wrong; the posterior misses much of the target's mass. Its means and variances cannot be "
        "trusted: train longer, reparameterise the model, or use a richer guide."
    )


def pareto_k_hat(log_ratios: np.ndarray) -> float:
    """Shape of the generalised Pareto tail of ``exp(log_ratios)``.

    The tail is the largest ``min(0.2 n, 3 sqrt(n))`` ratios; the fit is Zhang and Stephens 2009,
    doi:10.1198/tech.2009.08017, with the weak prior of Vehtari et al. 2024, arXiv:1507.02646.

    Args:
        log_ratios: array (draws,), finite.

    Returns:
        k-hat; -inf where the ratios are constant; inf where fewer than five stand out from the
        rest, so that those few carry all the weight.
    """
    n = len(log_ratios)
    tail_size = int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))
    ordered = np.sort(log_ratios - log_ratios.max())
    cutoff = max(np.exp(ordered[-tail_size - 1]), np.finfo(np.float64).tiny)
    excess = np.exp(ordered[-tail_size:]) - cutoff
    few_carry_all = excess[-1] > 0.5
    excess = excess[excess > 0]
    if len(excess) < 5:  # no tail to fit: ratios that are equal up to rounding, or a few spikes
        return float("inf") if few_carry_all else float("-inf")
    k, count = _pareto_shape(excess), len(excess)
    return float((count * k + 10 * 0.5) / (count + 10))


def _pareto_shape(x: np.ndarray) -> float:
    """Posterior-mean shape for sorted positive excesses x, over a grid of scale parameters."""
    n = len(x)
    grid = 30 + int(np.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3 * quartile) + 1 / x[-1]
    k = np.log1p(-b[:, None] * x).mean(1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weight = np.exp(log_likelihood - log_likelihood.max())
    weight = weight / weight.sum()
    return float(np.log1p(-(weight @ b) * x).mean())

"""Laws of vectors whose divergence is a sum of divergences of numbers, each a quadrature."""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.stats as st

from fuzzing.exact import Exact, beta, of


class Simplex(NamedTuple):
    """Dirichlet's law, by its concentration."""

    concentration: np.ndarray


class Gaussian(NamedTuple):
    """A normal law of a vector."""

    mean: np.ndarray
    covariance: np.ndarray


def factors(q: object, p: object) -> Iterator[tuple[Exact, Exact]]:
    """Laws of independent numbers, the same numbers for both sides, into which vectors come apart.

    A stick of a Dirichlet's vector is broken at independent places. Two normal laws are made round
    by one linear map: p's whitening, and a rotation to q's axes then.
    """
    if isinstance(q, Simplex) and isinstance(p, Simplex):
        for i in range(len(q.concentration) - 1):
            yield tuple(beta(d[0][i], d[0][i + 1 :].sum()) for d in (q, p))
    elif isinstance(q, Gaussian) and isinstance(p, Gaussian):
        white = np.linalg.inv(np.linalg.cholesky(p.covariance))
        variances, axes = np.linalg.eigh(white @ q.covariance @ white.T)
        for m, v in zip(axes.T @ white @ (q.mean - p.mean), variances, strict=True):
            yield of(st.norm(m, np.sqrt(v))), of(st.norm())
    else:
        yield q, p


def dirichlet(*columns):
    return dist.Dirichlet(jnp.stack(columns, axis=-1))


def _triangle(xp, first, below, second):
    rows = xp.stack([first, xp.zeros_like(first)], -1), xp.stack([below, second], -1)
    return xp.stack(rows, axis=-2)


def normal(name: str):
    """MultivariateNormal of two, from the entries of its location and of a triangular scale."""

    def make(a, b, *entries):
        scale = _triangle(jnp, *entries)
        matrix = {
            "scale_tril": scale,
            "covariance_matrix": scale @ scale.mT,
            "precision_matrix": scale @ scale.mT,
        }[name]
        return dist.MultivariateNormal(jnp.stack([a, b], -1), **{name: matrix})

    def exact(n):
        scale = _triangle(np, *np.asarray(n[2:]))
        matrix = scale @ scale.T
        inverse = name == "precision_matrix"
        return Gaussian(np.asarray(n[:2]), np.linalg.inv(matrix) if inverse else matrix)

    return make, exact


def low_rank(a, b, x, y, s, t):
    factor = jnp.stack([x, y], -1)[..., None]
    return dist.LowRankMultivariateNormal(jnp.stack([a, b], -1), factor, jnp.stack([s, t], -1))


def low_rank_exact(n):
    factor = np.asarray(n[2:4])
    return Gaussian(np.asarray(n[:2]), np.outer(factor, factor) + np.diag(n[4:]))


def diagonal(a, b, s, t):
    return dist.Normal(jnp.stack([a, b], -1), jnp.stack([s, t], -1)).to_event(1)


def diagonal_exact(n):
    return Gaussian(np.asarray(n[:2]), np.diag(np.square(n[2:])))

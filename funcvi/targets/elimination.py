"""Sums over discrete variables of products over plates, exactly.

Variables are summed out one by one, those in the most plates first, so that no table is larger than
it must be (Obermeyer et al. 2019, arXiv:1902.03210).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Factor", "eliminate", "log_sum_product"]

_LARGEST = 10**8  # entries of a table


@dataclass(frozen=True)
class Factor:
    """Logarithms by named axes: discrete variables and plates."""

    names: tuple[str, ...]
    values: Array

    def over(self, names: Sequence[str]) -> Array:
        """The values with these axes, of size one where there are none."""
        order = [n for n in names if n in self.names]
        moved = jnp.transpose(self.values, [self.names.index(n) for n in order])
        sizes = iter(moved.shape)
        return moved.reshape([next(sizes) if n in self.names else 1 for n in names])

    def product(self, names: Iterable[str]) -> "Factor":
        """The product over these axes."""
        gone = [n for n in self.names if n in set(names)]
        axes = tuple(self.names.index(n) for n in gone)
        return Factor(tuple(n for n in self.names if n not in gone), jnp.sum(self.values, axes))


def log_sum_product(
    factors: Sequence[Factor], plates_of: Mapping[str, frozenset[str]], sizes: Mapping[str, int]
) -> Array:
    """The log of the sum over all variables of the product of all factors over their plates.

    Args:
        factors: of variables and plates.
        plates_of: the plates that each variable is in.
        sizes: of all axes.

    Raises:
        ValueError: variables in plates that cross each other, or a table that is too large; it
            names them.

    Example:
        >>> import jax.numpy as jnp
        >>> one = Factor(("z",), jnp.log(jnp.array([0.25, 0.75])))
        >>> many = Factor(("z", "rows"), jnp.zeros((2, 5)))
        >>> bool(abs(log_sum_product([one, many], {"z": frozenset()}, {"z": 2, "rows": 5})) < 1e-6)
        True
    """
    left = eliminate(factors, plates_of, plates_of, sizes)
    return sum((jnp.sum(f.values) for f in left), jnp.zeros(()))


def eliminate(
    factors: Sequence[Factor],
    variables: Iterable[str],
    plates_of: Mapping[str, frozenset[str]],
    sizes: Mapping[str, int],
) -> list[Factor]:
    """The factors that are left where some variables are summed out.

    Args:
        factors: of variables and plates.
        variables: those to sum out.
        plates_of: the plates that each variable is in, also of those that stay.
        sizes: of all axes.

    Raises:
        ValueError: as :func:`log_sum_product`.
    """
    left = list(factors)
    for variable in sorted(variables, key=lambda name: -len(plates_of[name])):
        own = plates_of[variable]
        if not (holding := [f for f in left if variable in f.names]):
            continue
        left = [f for f in left if variable not in f.names]
        parts = []
        for factor in holding:
            further = [n for n in factor.names if n not in plates_of and n not in own]
            crossing = [n for n in factor.names if plates_of.get(n, frozenset()) & set(further)]
            if crossing:
                raise ValueError(
                    f"the discrete sites {variable!r} and {crossing[0]!r} are in plates that cross "
                    "each other: their sum is not to be had. Put one within the plate of the other."
                )
            parts.append(factor.product(further))
        names = tuple(dict.fromkeys(n for part in parts for n in part.names))
        if (size := math.prod(sizes[n] for n in names)) > _LARGEST:
            others = [n for n in names if n != variable]
            raise ValueError(
                f"to sum out the discrete site {variable!r} takes a table of {size:_} entries, "
                f"over {others}: fewer states, or fewer sites that depend on each other."
            )
        total = sum((part.over(names) for part in parts), jnp.zeros(()))
        total = jnp.broadcast_to(total, [sizes[n] for n in names])
        summed = _log_sum_exp(total, names.index(variable))
        left.append(Factor(tuple(n for n in names if n != variable), summed))
    return left


def _log_sum_exp(terms: Array, axis: int) -> Array:
    """What is impossible whatever the value has no gradient: ``jax.nn.logsumexp`` gives it NaN."""
    possible = ~jnp.all(jnp.isneginf(terms), axis=axis, keepdims=True)
    some = jax.nn.logsumexp(jnp.where(possible, terms, 0.0), axis=axis)
    return jnp.where(jnp.squeeze(possible, axis), some, -jnp.inf)

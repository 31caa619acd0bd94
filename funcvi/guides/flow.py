"""A normalising flow: noise bent by rational-quadratic splines, then a normal's place and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike
from numpyro.distributions import constraints, transforms

from funcvi._checks import check_count, check_option
from funcvi._types import Key, Params
from funcvi.guides.contract import Guide, start_of
from funcvi.guides.full_rank import full_rank
from funcvi.guides.splines import SplineLayer, start_of_layer
from funcvi.sampling.multivariate import times_vector
from funcvi.targets import Target

__all__ = ["flow"]


def flow(
    target: Target,
    *,
    kind: Literal["coupling", "autoregressive"] = "coupling",
    num_layers: int = 4,
    num_bins: int = 8,
    width: int = 32,
    scale: float | Mapping[str, ArrayLike] = 0.1,
    loc: Mapping[str, ArrayLike] | None = None,
) -> Guide:
    """A normalising flow on unconstrained space: what :func:`fv.full_rank` has, and bent.

    Standard normal noise goes through layers of monotone rational-quadratic splines, each followed
    by a shift and a scale, whose parameters a network makes of other coordinates; then through the
    location and Cholesky factor of a normal distribution. Durkan et al. 2019, arXiv:1906.04032. At
    the start the layers are the identity, so that the flow starts as ``fv.full_rank`` does.

    Args:
        target: made by :func:`fv.target`.
        kind: "coupling" bends half of the coordinates by functions of the other half, another half
            in each layer; "autoregressive" bends each by a function of all before it, in
            alternating order. The second one is closer with fewer layers. Draws cost the same;
            the density of values that are not draws takes ``target.size`` evaluations of each
            autoregressive layer, and two of a coupling layer.
        num_layers: of splines.
        num_bins: of each spline, on (-4, 4); outside it is the identity.
        width: of each network's hidden layer.
        scale, loc: see :func:`fv.mean_field`.

    Returns:
        A :class:`Guide`; its params are ``{"normal": {...}, "layers": [...]}``: those of
        ``fv.full_rank``, and for each layer about ``3 num_bins width size`` weights.

    Raises:
        TypeError: this is no target.
        ValueError: the kind is unknown, a number is not a positive integer, a scale is not
            positive, or a shape does not fit.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda v: dist.Normal(0.0, 1.0).log_prob(v["a"])
        ...               + dist.Normal(v["a"] ** 2, 0.5).log_prob(v["b"]),
        ...               supports={"a": constraints.real, "b": constraints.real})
        >>> guide = fv.flow(t, kind="autoregressive")
        >>> posterior = guide(guide.init(jax.random.key(0)))
        >>> posterior.log_prob({"a": 1.0, "b": 1.0}).shape
        ()
    """
    for name, value in (("num_layers", num_layers), ("num_bins", num_bins), ("width", width)):
        check_count(value, name)
    check_option(kind, "kind", ("coupling", "autoregressive"))
    normal = full_rank(target, scale=scale, loc=loc)
    ranks = [_ranks(target.size, layer, kind == "coupling") for layer in range(num_layers)]
    shape = _Shape(normal.family, tuple(ranks), num_bins, width)

    def latents(key: Key) -> Params:
        normal_key, key = jax.random.split(key)
        return shape.start(normal.latents(normal.init(normal_key)), key)

    options = {"kind": kind, "num_layers": num_layers, "num_bins": num_bins, "width": width}
    return Guide(target, start_of(target, latents), shape, ("flow", options))


@dataclass(frozen=True)
class _Shape:
    """The family: params to a flow, and a normal distribution to the params at which it is one."""

    normal: Any
    ranks: tuple[tuple[int, ...], ...]
    num_bins: int
    width: int

    def __call__(self, params: Params) -> dist.Distribution:
        q = self.normal(params["normal"])
        layers = [SplineLayer(w, r) for w, r in zip(params["layers"], self.ranks, strict=True)]
        noise = dist.Normal(jnp.zeros_like(q.loc), 1.0).to_event(1)
        return dist.TransformedDistribution(noise, [*layers, _Affine(q.loc, q.scale_tril)])

    def inverse(self, q: Any) -> Params:
        return self.start(self.normal.inverse(q), jax.random.key(0))

    def start(self, normal: Params, key: Key) -> Params:
        keys = jax.random.split(key, len(self.ranks))
        sizes = len(self.ranks[0]), self.num_bins, self.width
        return {"normal": normal, "layers": [start_of_layer(k, *sizes) for k in keys]}


def _ranks(size: int, layer: int, is_coupling: bool) -> tuple[int, ...]:
    """Of each coordinate; the order is random for every two layers, and turns from one to the next.

    The first two keep that of the sites, of which the later ones depend on the earlier ones.
    """
    order = np.random.default_rng(layer // 2).permutation(size) if layer > 1 else np.arange(size)
    places = np.argsort(order[::-1] if layer % 2 else order)
    return tuple(int(place >= (size + 1) // 2) if is_coupling else int(place) for place in places)


class _Affine(transforms.Transform):
    """``loc + factor @ x`` of a lower triangular factor, with any leading axes."""

    domain = codomain = constraints.real_vector

    def __init__(self, loc: Array, factor: Array) -> None:
        self.loc, self.factor = loc, factor

    def tree_flatten(self) -> Any:
        return (self.loc, self.factor), (("loc", "factor"), {})

    def __call__(self, x: Array) -> Array:
        return self.loc + times_vector(self.factor, x)

    def _inverse(self, y: Array) -> Array:
        eye = jnp.broadcast_to(jnp.eye(y.shape[-1], dtype=y.dtype), self.factor.shape)
        return times_vector(solve_triangular(self.factor, eye, lower=True), y - self.loc)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        diagonal = jnp.diagonal(self.factor, axis1=-2, axis2=-1)
        return jnp.broadcast_to(jnp.sum(jnp.log(diagonal), axis=-1), x.shape[:-1])

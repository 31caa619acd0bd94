"""Every guide, and one target with every constraint: the laws of test_guides.py run over these."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN

import funcvi as fv

KEY = jax.random.key(13)


# ---- a target with every constraint --------------------------------------------------------------


def everything(lowest):
    numpyro.sample("positive", dist.Gamma(2.0, 1.0))
    numpyro.sample("unit", dist.Beta(2.0, 3.0))
    numpyro.sample("bounded by data", dist.TruncatedNormal(1.0, 2.0, low=jnp.max(lowest)))
    numpyro.sample("simplex", dist.Dirichlet(jnp.array([2.0, 3.0, 1.5])))
    numpyro.sample(
        "ordered",
        dist.TransformedDistribution(
            dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
        ),
    )
    numpyro.sample("correlation", dist.LKJCholesky(3, 2.0))
    numpyro.sample("angle", dist.VonMises(0.3, 2.0))
    real = numpyro.sample("real", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 0.5))
    high = numpyro.sample("high", dist.Gamma(3.0, 1.0))
    numpyro.sample("below high", dist.Uniform(0.0, high))
    numpyro.deterministic("sum", real.sum())


EVERYTHING = fv.target(everything, jnp.array([-0.5, 0.2, 0.1]))

# A density on the simplex is one of all entries but the last, on correlation factors one of the
# entries below the diagonal: the others follow from them.
FREE = {
    "simplex": lambda x: x[:-1],
    "correlation": lambda x: x[jnp.tril_indices(3, -1)],
}


def free_coordinates(target, vector):
    values = target.constrain(target.unravel(vector))
    return jnp.concatenate([jnp.ravel(FREE.get(n, jnp.ravel)(values[n])) for n in target.shapes])


def log_det(target, vector):
    """By automatic differentiation of the whole map, nothing known of its parts."""
    return jnp.linalg.slogdet(jax.jacobian(lambda v: free_coordinates(target, v))(vector))[1]


# ---- flows ---------------------------------------------------------------------------------------


class Coupling(dist.transforms.Transform):
    """Half of the vector scaled and shifted by a network of the other half (Dinh et al. 2017)."""

    domain = codomain = constraints.real_vector

    def __init__(self, weights, flip):
        self.weights, self.flip = weights, flip

    def _parts(self, x):
        x = jnp.flip(x, -1) if self.flip else x
        kept, other = jnp.split(x, [x.shape[-1] // 2], axis=-1)
        hidden = jnp.tanh(kept @ self.weights["in"] + self.weights["bias"])
        scale, shift = jnp.split(hidden @ self.weights["out"], 2, axis=-1)
        return kept, other, jnp.tanh(scale), shift

    def _joined(self, kept, other):
        x = jnp.concatenate([kept, other], axis=-1)
        return jnp.flip(x, -1) if self.flip else x

    def __call__(self, x):
        kept, other, scale, shift = self._parts(x)
        return self._joined(kept, other * jnp.exp(scale) + shift)

    def _inverse(self, y):
        kept, other, scale, shift = self._parts(y)
        return self._joined(kept, (other - shift) * jnp.exp(-scale))

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return self._parts(x)[2].sum(-1)

    def tree_flatten(self):
        return (self.weights,), (("weights",), {"flip": self.flip})


def normal_vector(size):
    return dist.Normal(jnp.zeros(size), jnp.ones(size)).to_event(1)


def coupling_flow(size, layers=4, width=8):
    keys = jax.random.split(KEY, layers)
    params = [
        {
            "in": jax.random.normal(k, (size // 2, width)),
            "bias": jnp.zeros(width),
            "out": jnp.zeros((width, 2 * (size - size // 2))),
        }
        for k in keys
    ]

    def flow(params):
        parts = [Coupling(weights, bool(i % 2)) for i, weights in enumerate(params)]
        return dist.TransformedDistribution(normal_vector(size), parts)

    return params, flow


def autoregressive_flow(size):
    init, apply = AutoregressiveNN(size, [16 + size])
    _, params = init(KEY, (size,))

    def flow(params):
        transform = InverseAutoregressiveTransform(lambda x: apply(params, x))
        return dist.TransformedDistribution(normal_vector(size), [transform])

    return params, flow


def flowjax_flow(size):
    # funcvi does not depend on flowjax.
    flows = pytest.importorskip("flowjax.flows", reason="flowjax is not installed")
    normal = pytest.importorskip("flowjax.distributions").Normal
    return flows.coupling_flow(
        KEY, base_dist=normal(jnp.zeros(size)), flow_layers=4, nn_width=16, invert=False
    )


# ---- guides --------------------------------------------------------------------------------------


def mixture(target):
    components = dist.MultivariateNormal(
        jnp.zeros((3, target.size)), scale_tril=0.3 * jnp.eye(target.size)
    )
    return fv.guide(
        target, dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(3)), components)
    )


def by_site(target):
    heavy = {n: dist.StudentT(8.0, jnp.zeros(s), 0.3) for n, s in target.shapes.items()}
    return fv.guide(target, heavy)


def blocks_of_kinds(target):
    """A flow of the last site, a mixture of the one before, mean field of all others."""
    *others, one, last = target.shapes
    kinds = {
        last: lambda block: fv.flow(block, num_layers=1, width=4),
        one: lambda block: fv.mixture(block, num_components=2),
    }
    return fv.blocks(target, kinds | ({tuple(others): fv.mean_field} if others else {}))


GUIDES = {
    "mean_field": fv.mean_field,
    "full_rank": fv.full_rank,
    "low_rank": lambda target: fv.low_rank(target, rank=2),
    "laplace": fv.laplace,
    "blocks": lambda target: fv.blocks(
        target, [list(target.shapes)[::-1][:2], *list(target.shapes)[:-2]]
    ),
    "blocks of kinds": blocks_of_kinds,
    "mixture": lambda target: fv.mixture(target, num_components=3),
    "flow": lambda target: fv.flow(target, num_layers=2, width=8),
    "autoregressive splines": lambda target: fv.flow(
        target, kind="autoregressive", num_layers=2, num_bins=3, width=8
    ),
    "a mixture": mixture,
    "a distribution for each site": by_site,
    "params and family": lambda target: fv.guide(
        target,
        fv.unconstrain(
            dist.MultivariateStudentT(9.0, jnp.zeros(target.size), jnp.eye(target.size))
        ),
    ),
    "coupling layers": lambda target: fv.guide(target, coupling_flow(target.size)),
    "an autoregressive flow": lambda target: fv.guide(target, autoregressive_flow(target.size)),
    "flowjax": lambda target: fv.guide(target, flowjax_flow(target.size)),
}


def takes_independent_components():
    """numpyro before 0.22 does not."""
    try:
        pair = dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(1)
        dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)), pair)
    except AssertionError:
        return False
    return True


if takes_independent_components():
    GUIDES["diagonal mixture"] = lambda target: fv.mixture(
        target, num_components=2, covariance="diagonal"
    )

# Families that are given as a function of the params of one distribution have no batches.
FUNCTIONS = ("coupling layers", "an autoregressive flow", "flowjax")
HAS_BATCHES = tuple(name for name in GUIDES if name not in FUNCTIONS)
HAS_MARGINALS = ("mean_field", "full_rank", "low_rank", "laplace")


# ---- small targets -------------------------------------------------------------------------------

MEAN = np.array([0.5, -1.0, 2.0])
DIRECTION = np.array([0.8, -0.6, 0.5])
COVARIANCE = np.diag([0.3, 0.2, 0.5]) + np.outer(DIRECTION, DIRECTION)
"""Of rank one beside a diagonal, so that low rank can reach it too."""

CORRELATED = fv.target(
    lambda x: dist.MultivariateNormal(jnp.asarray(MEAN), jnp.asarray(COVARIANCE)).log_prob(
        jnp.append(x["pair"], x["one"])
    ),
    supports={"pair": (constraints.real, (2,)), "one": constraints.real},
)

# Two modes at a = -2 and 2, and b beside them.
TWO_MODES = fv.target(
    lambda x: (
        jnp.logaddexp(
            dist.Normal(-2.0, 0.3).log_prob(x["a"]), dist.Normal(2.0, 0.3).log_prob(x["a"])
        )
        + dist.Gamma(3.0, 1.0).log_prob(x["b"])
    ),
    supports={"a": constraints.real, "b": constraints.positive},
)

# b bends around a: its evidence is one.
BANANA = fv.target(
    lambda x: (
        dist.Normal(0.0, 1.0).log_prob(x["a"]) + dist.Normal(x["a"] ** 2, 0.5).log_prob(x["b"])
    ),
    supports={"a": constraints.real, "b": constraints.real},
)

"""What a target has to be, from numpyro alone: its log density, its bijections, its traces."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.util import sum_rightmost
from numpyro.infer.util import log_density

__all__ = ["discrete_choices", "log_det", "log_joint", "numpyro_trace"]


def numpyro_trace(entry, values):
    """numpyro's own trace at these values of the latents."""
    model = handlers.substitute(handlers.seed(entry.model, 0), data=values)
    args, kwargs = arrays_of(entry)
    return handlers.trace(model).get_trace(*args, **kwargs)


def arrays_of(entry):
    """Its data, as a target has them."""
    return jax.tree.map(
        lambda x: jnp.asarray(x) if hasattr(x, "dtype") else x, (entry.args, dict(entry.kwargs))
    )


@functools.cache
def discrete_choices(entry, target):
    """All assignments of the discrete latents: arrays by site, along a leading axis."""
    with jax.ensure_compile_time_eval():
        return _discrete_choices(entry, target)


def _discrete_choices(entry, target):
    values = target.constrain({n: jnp.zeros(shape) for n, shape in target.shapes.items()})
    trace = numpyro_trace(entry, {n: values[n] for n in target.shapes})
    sites = {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"] and site["fn"].is_discrete
    }
    if not sites:
        return {}
    values = {n: s["fn"].enumerate_support(expand=False).reshape(-1) for n, s in sites.items()}
    shapes = {n: jnp.shape(s["value"]) for n, s in sites.items()}
    counts = [len(values[n]) for n, shape in shapes.items() for _ in range(math.prod(shape))]
    places = np.indices(counts).reshape(len(counts), -1).T  # a row for each assignment
    found, start = {}, 0
    for name, shape in shapes.items():
        part = places[:, start : start + math.prod(shape)]
        found[name] = np.asarray(values[name])[part].reshape(len(places), *shape)
        start += math.prod(shape)
    return found


def log_joint(entry, target, values):
    """The log density of the constrained latents, summed over all assignments of discrete ones."""
    if entry.log_density is not None:
        return entry.log_density(values)

    def joint(choice):
        seeded = handlers.seed(entry.model, 0)
        return log_density(seeded, *arrays_of(entry), {**values, **choice})[0]

    choices = discrete_choices(entry, target)
    if not choices:
        return joint({})
    return jax.nn.logsumexp(jax.lax.map(joint, choices, batch_size=256))


def log_det(entry, target, z):
    """log |d x / d z| by way of numpyro's unconstrained space, whose own determinants are known.

    From the target's unconstrained vector to numpyro's by automatic differentiation, and from
    there to the values by numpyro's bijections.
    """

    def numpyros(vector):
        values = target.constrain(target.unravel(vector))
        trace = numpyro_trace(entry, values)
        parts, total = [], 0.0
        for name in target.shapes:
            bijection = biject_to(trace[name]["fn"].support)
            u = bijection.inv(values[name])
            det = bijection.log_abs_det_jacobian(u, values[name])
            total += sum_rightmost(det, jnp.ndim(det))
            parts.append(jnp.ravel(u))
        return jnp.concatenate(parts), total

    jacobian, total = jax.jacrev(numpyros, has_aux=True)(target.ravel(z))
    return jnp.linalg.slogdet(jacobian)[1] + total

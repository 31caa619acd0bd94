"""A guide that is a numpyro program, an autoguide or one's own, as a distribution."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.primitives import Messenger

from funcvi._types import Key, Params
from funcvi.constraints import bijection_for, constraint_name
from funcvi.densities.log_prob import log_prob
from funcvi.runtime_checks import require
from funcvi.sampling.gradients import covers_the_line
from funcvi.sampling.nesting import is_inside
from funcvi.sampling.record import unwrapped
from funcvi.sampling.scored import sample_and_log_prob
from funcvi.sampling.supports import elementwise, support_of
from funcvi.targets import Sites, Target

__all__ = ["from_program"]

Run = Callable[..., object]
Message = dict[str, Any]


_ALONE = "a function alone is taken for a numpyro guide, which is called as the model is"
_OTHERWISE = "A function of params goes with them: (params, function)."


class _Drawn(Messenger):
    """Draws with the samplers of funcvi, whose gradients are right, or refused.

    Attributes:
        log_probs: of what was drawn, by site: found on the way, without an inverse.
    """

    def __init__(self, fn: Run) -> None:
        super().__init__(fn)
        self.log_probs: dict[str, Array] = {}

    def process_message(self, msg: Message) -> None:
        """Sets the value of a site that has none yet."""
        if msg["type"] == "sample" and msg["value"] is None:
            key, shape = msg["kwargs"]["rng_key"], msg["kwargs"].get("sample_shape", ())
            msg["value"], self.log_probs[msg["name"]] = sample_and_log_prob(msg["fn"], key, shape)


class FromProgram(dist.Distribution):
    """The vectors of ``target.ravel`` that a program draws; a pytree of its params."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    pytree_data_fields = ("params",)
    pytree_aux_fields = ("program", "target")
    has_rsample = True

    def __init__(self, params: Params, program: "_Program", target: Target) -> None:
        self.params, self.program, self.target = params, program, target
        lead = jax.tree.leaves(program.leading(params))
        super().__init__((), (target.size,))
        if any(lead):
            raise ValueError("the params of a numpyro guide have leading axes: jax.vmap over them.")

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        """As the program draws, by the samplers of funcvi."""
        return self.sample_and_log_prob(key, sample_shape)[0]

    def sample_and_log_prob(
        self, key: Key, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Both from one run."""

        def one(key: Key) -> tuple[Array, Array, list[Array]]:
            values, log_q = self.program.run(self.params, key)
            z = self.target.unconstrain(values)
            outside = [_is_outside(values[n], z[n]) for n in self.program.unsure]
            return self.target.ravel(z), log_q + self.target.log_det(z), outside

        for _ in sample_shape:
            one = jax.vmap(one)
        z, log_q, outside = one(jax.random.split(key, sample_shape) if sample_shape else key)
        for name, which in zip(self.program.unsure, outside, strict=True):
            z, log_q = require(~which, (z, log_q), partial(_reaches_outside, name))
        return z, log_q

    def log_prob(self, value: Array) -> Array:
        """Of what the program could have drawn."""
        program, target = self.program, self.target
        program.check_scores()

        def one(vector: Array) -> Array:
            z = target.unravel(vector)
            values = {name: x for name, x in target.constrain(z).items() if name in target.shapes}
            return program.score(self.params, values) + target.log_det(z)

        for _ in value.shape[:-1]:
            one = jax.vmap(one)
        return one(value)


class _Program:
    """A numpyro guide at its data: pure functions of its unconstrained params."""

    def __init__(self, program: Run, target: Target) -> None:
        if target.call is None:
            raise TypeError(f"{_ALONE}; this target is no model's. {_OTHERWISE}")
        if target.minibatch is not None:
            raise ValueError(
                "a numpyro guide draws its own rows of a subsampling plate, and "
                f"{list(target.minibatch.axes)} are inside of one: use fv.mean_field(target) or "
                "fv.blocks, or leave subsample_size out."
            )
        self._program, self._call = program, target.call
        try:
            first = self._trace(handlers.seed(program, jax.random.key(0)))
        except TypeError as error:
            raise TypeError(f"{_ALONE}, and fails: {error}\n{_OTHERWISE}") from error
        found = {name: s for name, s in first.items() if s["type"] == "param"}
        if shared := [name for name in found if name in target.points]:
            raise ValueError(
                f"the param site {shared[0]!r} is in the model and in its numpyro guide, where it "
                "would be learned twice: give one of them another name."
            )
        self._bijections = {
            name: bijection_for(s["kwargs"].get("constraint", constraints.real))
            for name, s in found.items()
        }
        self.start = {
            name: jax.tree.map(self._inverse(name), s["value"]) for name, s in found.items()
        }
        drawn = {name: s for name, s in first.items() if s["type"] == "sample"}
        drawn = {name: s for name, s in drawn.items() if not s["is_observed"]}
        self._auxiliary = [name for name, s in drawn.items() if s["infer"].get("is_auxiliary")]
        self._latents = list(target.shapes)
        _check_sites(drawn, self._auxiliary, target)
        #: Sites whose draws may lie where the model's do not: each draw tells.
        self.unsure = [n for n in target.shapes if not _lies_inside(n, drawn[n]["fn"], target)]

    def _inverse(self, name: str) -> Callable[[Any], Array]:
        return lambda x: self._bijections[name].inv(jnp.asarray(x, jnp.result_type(float)))

    def _trace(self, program: Run) -> Mapping[str, Message]:
        return handlers.trace(program).get_trace(*self._call.args, **self._call.kwargs)

    def leading(self, params: Params) -> Any:
        """Of each param, how many axes more than the program's own."""
        return jax.tree.map(lambda x, own: jnp.ndim(x) - jnp.ndim(own), params, self.start)

    def _at(self, params: Params) -> Run:
        values = {n: jax.tree.map(self._bijections[n], x) for n, x in params.items()}
        return handlers.substitute(self._program, data=values)

    def run(self, params: Params, key: Key) -> tuple[Sites, Array]:
        """Constrained latents, and the log density of all that was drawn."""
        drawn = _Drawn(handlers.seed(self._at(params), key))
        trace = self._trace(drawn)
        log_q = _log_prob(trace, drawn.log_probs)
        return {name: trace[name]["value"] for name in self._latents}, log_q

    def score(self, params: Params, values: Sites) -> Array:
        """The log density of constrained latents."""
        program = handlers.substitute(self._at(params), data=values)
        return _log_prob(self._trace(handlers.seed(program, jax.random.key(0))), {})

    def check_scores(self) -> None:
        """Raises a TypeError where a draw does not tell what it was made of."""
        if self._auxiliary:
            raise TypeError(
                f"this numpyro guide draws its latents through {self._auxiliary}: the density of "
                "values that it has not drawn itself is not to be had."
            )


def from_program(
    program: Run, target: Target
) -> tuple[Params, Callable[[Params], dist.Distribution]]:
    """Params to start from, and the distribution that a numpyro guide has at params."""
    of = _Program(program, target)
    return of.start, lambda params: FromProgram(params, of, target)


def _log_prob(trace: Mapping[str, Message], known: Mapping[str, Array]) -> Array:
    total = jnp.zeros(())
    for name, site in trace.items():
        if site["type"] == "sample":
            values = known[name] if name in known else log_prob(site["fn"], site["value"])
            total += jnp.sum(values if site["scale"] is None else site["scale"] * values)
    return total


def _check_sites(drawn: Mapping[str, Message], auxiliary: list[str], target: Target) -> None:
    if missing := [name for name in target.shapes if name not in drawn]:
        raise ValueError(f"the numpyro guide does not sample {missing}, which the model does.")
    computed = all(isinstance(unwrapped(drawn[n]["fn"]), dist.Delta) for n in target.shapes)
    for name in drawn:
        if name in target.shapes or (name in auxiliary and computed):
            continue
        raise ValueError(
            f"the numpyro guide samples {name!r}, which is no latent site of the model: a bound "
            "with it would need the model's density of it too. Name it as the model does."
        )


def _lies_inside(name: str, q: dist.Distribution, target: Target) -> bool:
    """Whether the draws of a site are known to lie in the model's support; not, where they may.

    Raises:
        ValueError: they are known to reach outside.
    """
    ours, theirs = support_of(q), elementwise(target.constraints[name])
    if isinstance(unwrapped(q), dist.Delta):
        return False
    if q.is_discrete:
        raise ValueError(
            f"the numpyro guide samples {name!r} from a {type(q).__name__}, which is "
            "discrete, and the model's is continuous: choose a continuous one."
        )
    if type(ours) is type(constraints.real) and not covers_the_line(q):
        return False  # numpyro calls the support of an affine image the line
    inside = is_inside(ours, theirs)
    if isinstance(inside, Array):
        return False  # bounds may be learned, or depend on other sites
    if not inside:
        raise _reaches_outside(
            name,
            f"a {type(unwrapped(q)).__name__}, of support {constraint_name(ours)}, where "
            f"the model's is {constraint_name(theirs)}",
        )
    return type(ours) is type(theirs) or isinstance(theirs, type(constraints.real))


def _is_outside(value: Array, z: Array) -> Array:
    return jnp.all(jnp.isfinite(value)) & jnp.any(jnp.isnan(z))


def _reaches_outside(name: str, how: str = "values outside of the model's support") -> ValueError:
    return ValueError(
        f"the numpyro guide samples {name!r} from {how}.\nChoose a distribution whose "
        "support lies inside the model's, such as one of its family or a transformed Normal."
    )

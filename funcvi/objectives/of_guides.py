"""Losses made from guides: values that are equal where their contents are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._checks import check_key, check_option
from funcvi._jax import read_inputs
from funcvi._types import Key, Params
from funcvi.densities.bends import once_differentiable
from funcvi.guides import Guide, check_guide
from funcvi.objectives.draws import Draws, draws, is_distribution
from funcvi.objectives.estimators import OF_DRAWS, check_arguments
from funcvi.objectives.minibatches import check_linear, of_rows
from funcvi.objectives.sites import NOISES
from funcvi.sampling.gradients import edge_obstacle, jump_obstacle
from funcvi.sampling.noise import split

__all__ = ["GuideLoss"]


@dataclass(frozen=True)
class GuideLoss:
    """A function of the draws of ``guide(params)``, scored by the target on unconstrained space.

    Attributes:
        guide: a family of posteriors over its target.
        of: :class:`Draws`, with arrays of shape (n,), to the loss, a scalar; wherever it reads
            ``log_q`` it adds ``score``. Losses are equal, and compile once, if these are: a
            function of a module, or a frozen dataclass.
        num_samples: draws at each evaluation.
        estimator: to force one, or None.
        allowed: the estimators that are right for ``of``, the best first: of "enumeration",
            "pathwise", "score_function", "sticking_the_landing", "doubly_reparameterised".
        reader: the name of the loss, if it is not linear in log p: a target whose log density is
            random is refused then.

    Raises:
        TypeError: ``guide`` is not a guide, or ``allowed`` not a tuple.
        ValueError: ``num_samples`` is not a positive integer, ``estimator`` is not allowed, or the
            target is random and ``of`` is not linear in log p; when it is called, no allowed
            estimator is right for the guide, or ``of`` returns no scalar or leaves the score out.
    """

    guide: Guide
    of: Callable[[Draws], Array]
    num_samples: int
    estimator: str | None
    allowed: tuple[str, ...]
    reader: str | None = None
    noise: str = "independent"

    def __post_init__(self) -> None:
        check_guide(self.guide)
        if not isinstance(self.allowed, tuple) or not self.allowed:
            raise TypeError(
                f"allowed must be a tuple of estimators, the best first, got {self.allowed!r}."
            )
        for one in self.allowed:
            check_option(one, "allowed", OF_DRAWS)
        check_arguments(self.num_samples, self.estimator, self.allowed)
        check_option(self.noise, "noise", NOISES)
        if self.noise == "sobol" and self.num_samples & (self.num_samples - 1):
            raise ValueError(
                'noise="sobol" needs a num_samples that is a power of two (16, 64, 256), got '
                f"{self.num_samples}."
            )
        if self.reader is not None:
            self.guide.target.check_exact(self.reader)
            check_linear(self.guide.target.minibatch, self.reader)

    def __call__(self, params: Params, key: Key) -> Array:
        """The loss at ``params``, in nats; pure, works under jit, grad and vmap."""
        check_key(key)
        posterior = self.guide(params)
        target = posterior.target
        model_key, draw_key = split(key, 2)
        for d in jax.tree.leaves(posterior.unconstrained, is_leaf=is_distribution):
            if d.batch_shape:
                raise ValueError(
                    f"the guide's {type(d).__name__} has batch shape {d.batch_shape}: turn it into "
                    f"an event by to_event({len(d.batch_shape)})."
                )
        q, counts = posterior.unconstrained, None
        rows: dict[str, Array] = {}
        if target.minibatch is not None:
            rows = jax.vmap(target.minibatch.rows)(split(model_key, self.num_samples))
            q, counts = of_rows(posterior, target.minibatch, rows)

        def log_p(raw: Any) -> Array:
            z = posterior.sites(raw)
            if target.minibatch is not None:
                values = jax.vmap(target.minibatch.log_density)(z, rows)
            else:
                keys = split(model_key, len(jax.tree.leaves(z)[0]))
                values = jax.vmap(target.log_density)(z, keys)
            return once_differentiable(target.corner, values, z) if target.corner else values

        def jump(q: dist.Distribution) -> str | None:
            if self.reader is not None and target.jumps:
                return "the target jumps where its data's support ends"
            return jump_obstacle(q) or edge_obstacle(q)

        how = draw_key, self.num_samples, self.estimator, self.allowed
        options: Any = {"jump": jump, "counts": counts, "noise": self.noise}
        found = draws(q, log_p, *how, label="guide", **options)
        _check_score(self.of, found)
        loss = self.of(found)
        if jnp.shape(loss) != ():
            raise ValueError(
                f"{_name(self.of)} must return a scalar of the draws, got shape {jnp.shape(loss)}: "
                "take their mean, say."
            )
        return loss


def _check_score(of: Callable[[Draws], Array], found: Draws) -> None:
    """A bound that leaves the score out would have a gradient of zero, and train nothing."""
    if found.live_score is None:
        return
    jaxpr = jax.make_jaxpr(lambda score: of(found._replace(live_score=score)))(found.live_score)
    if not read_inputs(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))[0]:
        raise ValueError(
            f"{_name(of)} does not read draws.score, which has the gradient of what is drawn by "
            "the score function: write draws.log_q + draws.score for log q."
        )


def _name(of: Callable[[Draws], Array]) -> str:
    return getattr(of, "__name__", type(of).__name__)

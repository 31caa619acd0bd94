"""The private names of JAX that funcvi uses, each with what it must do."""

from collections.abc import Sequence

import jax
from jax._src import ad_checkpoint, pjit
from jax._src.interpreters import partial_eval
from jax.extend.core import Jaxpr

__all__ = ["forget_traces", "is_concrete", "read_inputs"]

# Libraries whose functions read nothing that changes.
_STEADY = ("jax", "funcvi", "numpyro", "optax")


def is_concrete(tree: object) -> bool:
    """Whether no leaf is traced: there are values now, not only under a transformation."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def forget_traces() -> None:
    """Makes JAX trace anew every function of the user's.

    It keeps the traces of what it is handed (``jax.jit``, ``jax.checkpoint``, ``lax.scan``,
    ``lax.cond``) for as long as the function lives, whatever the function reads by then. What has
    been compiled stays compiled.
    """
    caches = (
        partial_eval.trace_to_jaxpr,
        pjit._infer_params_cached,
        ad_checkpoint._trace_to_jaxpr,
    )
    for reference, *_ in partial_eval.trace_to_jaxpr.cache_keys():
        function = reference()
        module = getattr(function, "__module__", None) or ""
        if function is not None and module.partition(".")[0] not in _STEADY:
            for cache in caches:
                cache.evict_weakref(function)


def read_inputs(jaxpr: Jaxpr, outputs: Sequence[bool]) -> list[bool]:
    """Which inputs the marked outputs depend on."""
    return list(partial_eval.dce_jaxpr(jaxpr, list(outputs))[1])

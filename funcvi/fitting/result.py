"""What a fit returns."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from funcvi import _jax
from funcvi._types import Params
from funcvi.fitting.status import Status, Verdict, judge
from funcvi.fitting.steps import Carry
from funcvi.sampling.rounding import is_half

__all__ = ["Fit", "moved"]

T = TypeVar("T")

#: One for a fit, a list for a batch of fits, a list of lists for a batch of batches.
PerFit: TypeAlias = T | Sequence["PerFit[T]"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "losses", "state", "carry", "moved", "judged_from", "fingerprint"),
    meta_fields=("unread", "is_random", "loop", "patience", "tolerance", "interruption"),
)
@dataclass(frozen=True)
class Fit:
    """The result of :func:`fit`; pass it as ``params`` to continue. A pytree.

    Under ``jax.vmap`` all its arrays have a leading axis of fits, and ``status``, ``reason`` and
    ``num_skipped`` are lists of what they are for one.

    Attributes:
        params: the fitted params; after a divergence, the last at which the loss was finite.
        losses: array (steps,), one value for each step taken, the skipped ones included. In a batch
            of fits, NaN after the end of one that gave up.
        state: what the loss carries beside its params, after the last step; or None.
        carry: what a continuation starts from.
        moved: whether any of the params has changed since the start, if only for a while.
        judged_from: the first of the losses that count for the status: those before were of another
            loss or other args.
        unread: names of the params that the loss does not read, or only through what has no
            derivative.
        is_random: whether the loss depends on its key.
        loop: "compiled" or "host": which ran.
        interruption: who ended the fit before its last step, if anyone did.
    """

    params: Params
    losses: np.ndarray | jax.Array
    state: object
    carry: Carry
    moved: bool | np.ndarray | jax.Array
    judged_from: np.ndarray | np.int32 | jax.Array
    fingerprint: np.ndarray | jax.Array
    unread: tuple[str, ...]
    is_random: bool
    loop: str
    patience: int
    tolerance: float | None
    interruption: str | None

    @property
    def status(self) -> PerFit[Status]:
        """converged, undecided, out_of_budget, diverged or interrupted."""
        return _per_fit(self, lambda fit: fit._verdict().status)

    @property
    def reason(self) -> PerFit[str]:
        """Why, and what to do."""
        return _per_fit(self, lambda fit: fit._verdict().reason)

    @property
    def num_skipped(self) -> PerFit[int]:
        """How many steps were skipped because of a non-finite loss or gradient."""
        return _per_fit(self, lambda fit: int(fit.carry.skipped))

    def __repr__(self) -> str:
        if not _jax.is_concrete(self.carry):
            return f"Fit({np.shape(self.losses)[-1]} steps)"
        if np.ndim(self.carry.run):
            counts = Counter(np.ravel(np.asarray(self.status)).tolist())
            statuses = ", ".join(f"{counts[s]} {s}" for s in Status if s in counts)
            shape = list(np.shape(self.carry.run))
            return f"Fit({shape} fits, {np.shape(self.losses)[-1]} steps each; {statuses})"
        last = f"{self.losses[-1]:.6g}" if len(self.losses) else "none"
        status, reason = self._verdict()
        return f"Fit({len(self.losses)} steps, last loss {last}; {status.value}: {reason})"

    def _verdict(self) -> Verdict:
        first = int(self.judged_from)
        losses = np.asarray(self.losses)[first : int(self.carry.step)]
        draws, stateful = self.is_random, self.state is not None
        half = _half_precision(self.params)
        verdict = judge(
            losses, self.carry, self.patience, self.tolerance, first, draws, stateful, half
        )
        if self.interruption is not None and verdict.status != Status.diverged:
            verdict = Verdict(Status.interrupted, self.interruption)
        notes = []
        if self.unread:
            names = ", ".join(self.unread)
            notes.append(
                f" The loss does not read {names}, or only through what has no derivative: nothing "
                "is learned of them."
            )
        if not self.moved and verdict.status != Status.diverged:
            notes.append(" No parameter has moved since the start: every step was zero")
            notes.append(
                f", or rounds to nothing in {half}: fit params of float32." if half else "."
            )
        return verdict._replace(reason=verdict.reason + "".join(notes))


def _per_fit(fit: Fit, of: Callable[[Fit], T]) -> PerFit[T]:
    if not _jax.is_concrete(fit.carry):
        raise TypeError(
            "a status is judged from values, and those of this fit are traced: return the fit from "
            "jax.jit or jax.vmap, and read it there."
        )
    if not np.ndim(fit.carry.run):
        return of(fit)
    each = (jax.tree.map(lambda x, i=i: x[i], fit) for i in range(len(fit.carry.run)))
    return [_per_fit(one, of) for one in each]


def _half_precision(params: Params) -> str | None:
    """The narrow dtype of any of the params: steps beside a number of it may round to nothing."""
    narrow = [x.dtype.name for x in jax.tree.leaves(params) if is_half(x.dtype)]
    return narrow[0] if narrow else None


def moved(before: Params, after: Params) -> jax.Array | bool:
    """Whether any of the params is another number than before."""
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    if _jax.is_concrete(pairs):
        return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)
    return jnp.stack([(a != b).any() for a, b in pairs]).any()

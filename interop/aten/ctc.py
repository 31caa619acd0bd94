"""The loss over all alignments of a sequence with its labels (CTC)."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.registry import Table

rules = Table()


@rules("interop.ctc_loss.default")
def ctc_loss(
    log_p: jax.Array,
    targets: jax.Array,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    zero_infinity: bool,
) -> jax.Array:
    """The loss of each sequence: minus the log-probability of all paths that spell its target.

    The gradient is torch's, which takes ``log_p`` to be normalised: it has a term exp(log_p) more
    than the derivative of the value, of no consequence behind a log_softmax.
    """
    longest, batch, _ = log_p.shape
    input_lengths = jnp.asarray(input_lengths).reshape(-1)
    target_lengths = jnp.asarray(target_lengths).reshape(-1)
    labels = _padded_targets(targets, target_lengths, batch)
    spelled = jnp.full((batch, 2 * labels.shape[1] + 1), blank, labels.dtype)
    spelled = spelled.at[:, 1::2].set(labels)  # blanks before, between and after
    states = jnp.arange(spelled.shape[1])
    skips = jnp.pad(spelled[:, 2:] != spelled[:, :-2], ((0, 0), (2, 0))) & (spelled != blank)
    at = jnp.broadcast_to(spelled, (longest, *spelled.shape))
    impossible = -1e30  # finite, for its gradient
    emitted = jnp.maximum(jnp.take_along_axis(log_p, at, 2), impossible)

    def shifted(alpha: jax.Array, by: int) -> jax.Array:
        return jnp.pad(alpha, ((0, 0), (by, 0)), constant_values=impossible)[:, : alpha.shape[1]]

    def step(carried: Any, moment: Any) -> tuple[Any, None]:
        """The largest is kept apart, and near zero little is lost to rounding."""
        alpha, level = carried
        emission, number = moment
        arriving = jnp.logaddexp(alpha, shifted(alpha, 1))
        arriving = jnp.logaddexp(arriving, jnp.where(skips, shifted(alpha, 2), impossible))
        going = (number < input_lengths)[:, None]
        alpha = jnp.where(going, arriving + emission, alpha)
        top = jax.lax.stop_gradient(jnp.max(alpha, 1, keepdims=True))
        top = jnp.where(top > impossible / 2, top, 0)
        return (alpha - top, level + top[:, 0]), None

    started = (states < 2) & (states <= 2 * target_lengths[:, None])
    alpha = jnp.where(started & (input_lengths > 0)[:, None], emitted[0], impossible)
    level = jnp.zeros(batch, log_p.dtype)
    moments = (emitted[1:], jnp.arange(1, longest))
    (alpha, level), _ = jax.lax.scan(step, (alpha, level), moments)
    last = 2 * target_lengths[:, None]
    before = jnp.where(last > 0, last - 1, last)
    ends = jnp.where(last > 0, jnp.take_along_axis(alpha, before, 1), impossible)
    losses = -jnp.logaddexp(jnp.take_along_axis(alpha, last, 1), ends)[:, 0]
    losses = jnp.where(losses < -impossible / 2, losses - level, jnp.inf)
    empty = jnp.where(target_lengths == 0, 0.0, jnp.inf)
    losses = jnp.where(input_lengths == 0, empty, losses)
    counts = (jnp.arange(longest)[:, None] < input_lengths)[..., None]
    total = jnp.sum(jnp.where(counts, jnp.exp(log_p), 0), (0, 2))
    losses = losses + (total - jax.lax.stop_gradient(total))
    return jnp.where(jnp.isinf(losses), 0, losses) if zero_infinity else losses


def _padded_targets(targets: jax.Array, lengths: jax.Array, batch: int) -> jax.Array:
    """One row each: given as rows, or one after the other."""
    if targets.ndim == 2:
        return targets
    starts = jnp.cumsum(lengths) - lengths
    at = starts[:, None] + jnp.arange(max(1, targets.shape[0]))
    return jnp.take(targets, jnp.clip(at, 0, max(0, targets.shape[0] - 1)))

"""How a fit ended, judged from its losses, in words that say what to do."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

__all__ = ["Status", "judge"]

_LEAST = 40  # fewer losses say nothing about convergence
_BATCHES = 10


@dataclass(frozen=True)
class Status:
    """``name`` is "converged", "out of budget" or "diverged"; ``message`` says why."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


def judge(losses: np.ndarray, state: Any, patience: int) -> Status:
    """The status of a fit with these losses, ending in this state.

    Converged means: over the last half of the steps the loss fell by no more than twice the
    standard error of that fall, by the method of batch means (so autocorrelated losses are not
    mistaken for precise ones); or by less than a thousandth, of a nat and of all it ever fell. The
    best single value plays no part: on a noisy loss it is luck.
    """
    if int(state.run) >= patience:
        return _diverged(losses, state, patience)
    kept = np.asarray(losses[np.isfinite(losses)], np.float64)
    skipped = _skipped(int(state.skipped), int(state.run))
    if not len(kept):
        return _diverged(losses, state, int(state.run))
    if len(kept) < _LEAST:
        return Status(
            "out of budget", f"{len(kept)} finite losses are too few to judge; continue.{skipped}"
        )
    quarter = len(kept) // 4
    older, newer = kept[-2 * quarter : -quarter], kept[-quarter:]
    fall, error = older.mean() - newer.mean(), np.hypot(_batch_error(older), _batch_error(newer))
    start = kept[: max(quarter // 2, 1)]
    rise = newer.mean() - start.mean()
    relapse = -fall > 0.1 * (start.mean() - older.mean())
    if _above(newer, start) or (relapse and _above(newer, older)):
        return Status(
            "diverged",
            f"the loss rose from {min(start.mean(), older.mean()):.4g} to {newer.mean():.4g}. "
            "Lower the learning rate, or clip: "
            f"optax.chain(optax.clip_by_global_norm(1.0), optimizer).{skipped}",
        )
    said = f"over the last half the loss changed by {-fall:+.2g} +- {error:.1g}"
    if fall <= 2 * error:
        return Status("converged", f"{said}, no more than its noise.{skipped}")
    if fall <= max(1e-3 * min(abs(rise), 1.0), _resolution(kept)):
        return Status("converged", f"{said}, which is negligible.{skipped}")
    return Status(
        "out of budget",
        f"{said}, so it is still falling: continue with fv.fit(loss, fit, optimizer, ...), or "
        f"raise the learning rate.{skipped}",
    )


def _skipped(count: int, run: int) -> str:
    if not count:
        return ""
    lately = f", the last {run} among them" if run else ""
    return f" {count} non-finite step(s) were skipped{lately}."


def _above(newer: np.ndarray, older: np.ndarray) -> bool:
    """Whether every batch of the one lies above every batch of the other, by more than its noise.

    By ranks, because a loss that grows exponentially has an error as large as its mean.
    """
    rise = newer.mean() - older.mean()
    apart = _batch_means(newer).min() > _batch_means(older).max()
    return bool(apart and rise > max(4 * _batch_error(older), _resolution(older)))


def _batch_means(values: np.ndarray) -> np.ndarray:
    return np.array([b.mean() for b in np.array_split(values, _BATCHES) if len(b)])


def _batch_error(values: np.ndarray) -> float:
    """Standard error of the mean from the means of consecutive batches."""
    means = _batch_means(values)
    return float(means.std(ddof=1) / np.sqrt(len(means)))


def _resolution(values: np.ndarray) -> float:
    return 1e-6 * float(np.abs(values[-len(values) // 4 :]).mean() + 1e-6)


def _diverged(losses: np.ndarray, state: Any, patience: int) -> Status:
    finite = np.flatnonzero(np.isfinite(losses))
    remedy = (
        "Lower the learning rate (a tenth of it first), take the mean over draws and not their "
        "sum, or clip: optax.chain(optax.clip_by_global_norm(1.0), optimizer)."
    )
    if not len(finite):
        return Status(
            "diverged",
            f"the loss or its gradient was non-finite at the initial params, {patience} times in a "
            "row; nothing was learned. Start where the loss is finite: check data, supports and "
            "priors.",
        )
    return Status(
        "diverged",
        f"the loss or its gradient was non-finite {patience} times in a row after step {finite[-1]}"
        f"{_culprit(state)}; the params before that step are returned. {remedy}",
    )


def _culprit(state: Any) -> str:
    """The parameter that the last accepted step moved the furthest."""
    moved = [
        (float(np.abs(np.asarray(new, float) - np.asarray(old, float)).max(initial=0.0)), path)
        for (path, new), old in zip(
            jax.tree_util.tree_leaves_with_path(state.params),
            jax.tree.leaves(state.good_params),
            strict=True,
        )
    ]
    size, path = max(moved, key=lambda pair: pair[0])
    return f", which moved params{jax.tree_util.keystr(path)} by {size:.3g}" if size > 0 else ""

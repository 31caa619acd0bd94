"""How a fit ended, judged from its losses, in words that say what to do."""

from enum import StrEnum
from typing import NamedTuple

import jax
import numpy as np

from funcvi.fitting.steps import Carry

__all__ = ["Status", "Verdict", "judge"]

_LEAST = 40  # fewer losses say nothing about convergence
_BATCHES = 10
_ERRORS = 2.5  # standard errors within which a change is noise
_LARGE_STEP = 1e-2  # relative: a loss that stays equal along it is no minimum that was reached
_LARGEST, _SMALLEST, _FRACTION = 0.1, 1e-3, 1e-2  # the tolerance, unless it is given
_ROUNDED = (
    "beside numbers of {half} steps round to nothing, at a minimum or far from it. Fit params of "
    "float32, and round them in the loss."
)


class Status(StrEnum):
    """How a fit ended; compares equal to its name."""

    converged = "converged"
    undecided = "undecided"
    out_of_budget = "out_of_budget"
    diverged = "diverged"
    interrupted = "interrupted"


class Verdict(NamedTuple):
    """A status, and why."""

    status: Status
    reason: str


def judge(
    losses: np.ndarray,
    carry: Carry,
    patience: int,
    tolerance: float | None,
    first: int = 0,
    draws: bool = True,
    stateful: bool = False,
    half: str | None = None,
) -> Verdict:
    """The status of a fit with these losses, ending in this carry.

    A line through the last half of the losses, and one through their last three quarters, each give
    an upper confidence bound for the fall of a step (two and a half standard errors, from batch
    means, so autocorrelated losses are not mistaken for precise ones). As long as the fall does not
    quicken, as many steps again gain no more than that many times the smaller one. "converged"
    means that this bound is at most ``tolerance``, and at most a tenth of it where the fall can be
    told from noise and is not slowing down. The best single loss plays no part: on a noisy loss it
    is luck.

    The losses are those from step ``first`` on. Equal losses of one that ``draws`` bound nothing:
    what it draws once in more steps than these has not been seen. A ``stateful`` loss is another
    function at each step, so it may rise without diverging.
    """
    run, skipped = int(carry.run), int(carry.skipped)
    kept = np.asarray(losses[np.isfinite(losses)], np.float64)
    if run >= patience or (not len(kept) and len(losses)):
        return Verdict(Status.diverged, _non_finite(losses, carry, run, first))
    status, reason = _judged(kept, tolerance, draws, stateful)
    last = kept[-max(_LEAST, len(kept) // 4) :]
    same = len(last) >= _LEAST and not (draws or stateful) and bool((last == last[0]).all())
    path, size = max(_moves(carry, relative=True), key=lambda pair: pair[1], default=("", 0.0))
    if status == Status.converged and half and (same or (draws and size == 0)):
        what = f"the last {len(last)} losses are equal" if same else "the last step moved no params"
        status, reason = Status.undecided, f"{what}: {_ROUNDED.format(half=half)}"
    elif status == Status.converged and same and size > _LARGE_STEP:
        status = Status.undecided
        reason = (
            f"the last {len(last)} losses are equal, though the last step moved params{path} by "
            f"{size:.2g} of its size: the fit goes to and fro, or the loss is flat there. Lower "
            "the learning rate."
        )
    if skipped:
        lately = f", the last {run} among them" if run else ""
        reason += f" {skipped} non-finite step(s) were skipped{lately}."
    return Verdict(status, reason)


def _judged(
    losses: np.ndarray, tolerance: float | None, draws: bool, stateful: bool
) -> tuple[Status, str]:
    if len(losses) < _LEAST:
        return Status.out_of_budget, (
            f"{len(losses)} finite losses are too few to judge; continue."
        )
    quarter = len(losses) // 4
    before, older, newer = np.split(losses[-3 * quarter :], 3)
    start = losses[: max(quarter // 2, 1)]
    relapse = newer.mean() - older.mean() > 0.1 * (start.mean() - older.mean())
    rising = _above(newer, older)
    if stateful and rising:
        return Status.undecided, (
            f"the loss rose from {older.mean():.4g} to {newer.mean():.4g}, perhaps because its "
            "state changed, such as an annealed weight: continue until the state has settled. If "
            "it rises still, lower the learning rate."
        )
    if not stateful and (_above(newer, start) or (relapse and rising)):
        return Status.diverged, (
            f"the loss rose from {min(start.mean(), older.mean()):.4g} to {newer.mean():.4g}. "
            "Lower the learning rate, or clip: "
            "optax.chain(optax.clip(1e6), optax.clip_by_global_norm(1.0), optimizer)."
        )
    if tolerance is None:
        fallen = losses[: _LEAST // 4].mean() - newer.mean()
        tolerance = min(_LARGEST, max(_FRACTION * fallen, _SMALLEST))
    tolerance = max(tolerance, _resolution(losses))
    half = losses[-2 * quarter :]
    lately, error = _fall(half)
    bounds = [
        max(f, 0.0) + _ERRORS * e for f, e in (_fall(losses[-3 * quarter :]), (lately, error))
    ]
    bound = len(losses) * min(bounds)
    falling = lately > _ERRORS * error
    slowing = older.mean() - newer.mean() < 0.8 * (before.mean() - older.mean())
    tolerated = f"the tolerance is {tolerance:.2g} nats"
    if draws and np.ptp(half) == 0.0:
        return Status.undecided, (
            f"the last {len(half)} losses are equal, though the loss draws: what happens less "
            f"often than once in {len(half) // 3} steps may not have been seen. Continue, or "
            "raise num_samples."
        )
    rise = float((newer - np.minimum.accumulate(newer)).max())
    if not (draws or stateful) and not falling and rise > tolerance:
        return Status.undecided, (
            f"the loss goes up and down, by {rise:.2g} nats in the last quarter of the steps, "
            f"though it does not draw: lower the learning rate; {tolerated}."
        )
    if bound <= tolerance / 10 or (bound <= tolerance and (slowing or not falling)):
        provided = ", if the state stays as it is" if stateful else ""
        return Status.converged, (
            f"as many steps again would gain at most {bound:.2g} nats{provided}; {tolerated}."
        )
    if falling:
        change, error = len(losses) / 2 * lately, len(losses) / 2 * error
        return Status.out_of_budget, (
            f"the loss is still falling, by {change:.2g} +- {error:.1g} nats over the last half of "
            "the steps: continue with fv.fit(loss, fit, optimizer, ...), or raise the learning "
            f"rate; {tolerated}."
        )
    return Status.undecided, (
        f"the noise hides changes below {bound:.2g} nats: raise num_samples or num_steps, "
        f"or take a larger batch; {tolerated}."
    )


def _fall(values: np.ndarray) -> tuple[float, float]:
    """How much the values fall from one to the next, and its standard error.

    The least-squares line through the means of consecutive batches.
    """
    means = _batch_means(values)
    time = np.arange(len(means)) - (len(means) - 1) / 2
    slope = time @ means / (time @ time)
    residuals = means - means.mean() - slope * time
    error = np.sqrt(residuals @ residuals / (len(means) - 2) / (time @ time))
    return -slope * len(means) / len(values), error * len(means) / len(values)


def _above(newer: np.ndarray, older: np.ndarray) -> bool:
    """Whether every batch of the one lies above every batch of the other, by more than its noise.

    By ranks, because a loss that grows exponentially has an error as large as its mean.
    """
    new, old = _batch_means(newer), _batch_means(older)
    noise = max(4 * old.std(ddof=1) / np.sqrt(len(old)), _resolution(older))
    return bool(new.min() > old.max() and newer.mean() - older.mean() > noise)


def _batch_means(values: np.ndarray) -> np.ndarray:
    return np.array([b.mean() for b in np.array_split(values, _BATCHES) if len(b)])


def _resolution(values: np.ndarray) -> float:
    return 1e-6 * float(np.abs(values[-len(values) // 4 :]).mean() + 1e-6)


def _non_finite(losses: np.ndarray, carry: Carry, run: int, first: int) -> str:
    finite = np.flatnonzero(np.isfinite(losses))
    what = "the loss, its gradient or the optimizer's state was non-finite"
    if len(finite):
        return (
            f"{what} {run} times in a row after step {first + finite[-1]}{_culprit(carry)}; the "
            "params before that step are returned. Lower the learning rate (a tenth of it first), "
            "take the mean over draws and not their sum, or clip: "
            "optax.chain(optax.clip(1e6), optax.clip_by_global_norm(1.0), optimizer)."
        )
    if first:
        return (
            f"{what} {run} times in a row at the params that the fit was continued from, which are "
            "returned: check what changed in the loss or args."
        )
    return (
        f"{what} at the initial params, {run} times in a row; nothing was learned. Start where the "
        "loss is finite: check data, supports and priors."
    )


def _culprit(carry: Carry) -> str:
    """The parameter that the last accepted step moved the furthest."""
    path, size = max(_moves(carry, relative=False), key=lambda pair: pair[1])
    return f", which moved params{path} by {size:.3g}" if size > 0 else ""


def _moves(carry: Carry, relative: bool) -> list[tuple[str, float]]:
    """How far the last accepted step moved each of the params; relative to its size, or to one."""

    def distance(new: jax.Array, old: jax.Array) -> float:
        before, after = np.asarray(old, float), np.asarray(new, float)
        size = np.abs(before).max(initial=1.0) if relative else 1.0
        return float((np.abs(after - before) / size).max(initial=0.0))

    moved = jax.tree.map(distance, carry.params, carry.good_params)
    leaves = jax.tree_util.tree_leaves_with_path(moved)
    return [(jax.tree_util.keystr(path), size) for path, size in leaves]

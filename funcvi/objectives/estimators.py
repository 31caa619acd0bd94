"""Which estimator is right for a distribution: chosen, checked and refused here, nowhere else.

The answers are structural: they read the classes of the distributions and never ask whether a value
is traced, so that an objective chooses alike eagerly and under jit.
"""

import numpyro.distributions as dist

from funcvi._checks import check_count, check_option
from funcvi.masks import masked
from funcvi.objectives.enumeration import finite_support, mixture_parts
from funcvi.sampling.gradients import pathwise_obstacle, score_obstacle

__all__ = ["OF_DRAWS", "check_arguments", "choose", "obstacle"]

OF_DRAWS = (
    *("enumeration", "pathwise", "score_function"),
    *("sticking_the_landing", "doubly_reparameterised"),
)
"""What a bound of draws may allow."""


def check_arguments(num_samples: int, estimator: str | None, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless there is at least one draw, by an estimator that is allowed."""
    if estimator is not None:
        check_option(estimator, "estimator", allowed)
    check_count(num_samples, "num_samples")


def choose(
    q: dist.Distribution,
    estimator: str | None,
    allowed: tuple[str, ...],
    *,
    jump: str | None = None,
    label: str = "q",
) -> str:
    """The first of the allowed estimators that is right for q; or the one asked for, if it is.

    ``jump`` tells why the gradient of what is averaged would be wrong along any draws of q or of
    its components (see ``jump_obstacle`` and ``edge_obstacle``).

    Raises:
        ValueError: the one asked for, or every one, would give a wrong gradient; the message names
            a right one.
    """
    obstacles = {e: obstacle(e, q, jump) for e in allowed}
    right = next((e for e, reason in obstacles.items() if reason is None), None)
    if estimator is None:
        if right is not None:
            return right
        # Why something cannot be enumerated helps nobody whose gradients are wrong.
        reasons = dict.fromkeys(r for e, r in obstacles.items() if e != "enumeration" and r)
        raise ValueError(
            f"no estimator has a right gradient for {label} = {type(q).__name__}: "
            f"{', and '.join(reasons)}.\nChoose another family."
        )
    reason = obstacles[estimator]
    if reason is None:
        return estimator
    fault = "is not possible" if estimator == "enumeration" else "has a zero or biased gradient"
    instead = (
        "No estimator is right for it here: choose another family."
        if right is None
        else f'Use estimator="{right}", or leave it out.'
    )
    raise ValueError(
        f'estimator="{estimator}" {fault} for {label} = {type(q).__name__}: {reason}.\n{instead}'
    )


def obstacle(estimator: str, q: dist.Distribution, jump: str | None = None) -> str | None:
    """Why this estimator's gradient would be wrong for q; None if it is right."""
    name = type(q).__name__
    if masked(q):
        return f"the log density of {name} is zero where it is masked, and its draws are not"
    if estimator == "enumeration":
        if finite_support(q) is not None:
            return None
        if mixture_parts(q) is not None:
            return jump  # the components' draws move along the same path
        return f"{name} has no small finite support and is no mixture of pathwise components"
    if estimator == "score_function":
        return score_obstacle(q)
    reason = pathwise_obstacle(q) or jump
    # The other two drop the score, whose mean must be zero.
    return reason if estimator == "pathwise" else reason or score_obstacle(q)

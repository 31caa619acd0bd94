"""Runs a case and says what came of it: right, refused, not a number, or wrong in silence."""

import re
import traceback
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fuzzing.cases import OBJECTIVES, Case, along, answers
from fuzzing.laws import is_discrete

KEYS = 1024
AGAIN = 16  # as many draws before anything is reported
STANDARD_ERRORS = 5.5
# Of the value and two derivatives. Half precision shows what is grossly wrong or not finite.
_ROUNDING = {
    "float32": (3e-5, 2e-4, 2e-3),
    "float64": (1e-7, 3e-6, 3e-5),
    "bfloat16": (0.1, 0.25, np.inf),
    "float16": (0.02, 0.1, np.inf),
}
_HEAVY = 0.05  # one draw's share of the variance, beyond which a standard error means little


class Outcome(NamedTuple):
    """What came of a case; ``faults`` are what the fuzzer looks for."""

    name: str
    detail: str = ""


FAULTS = ("WRONG", "FOREIGN", "UNEQUAL", "DTYPE")


def check(case: Case, objectives: dict[str, Any] | None = None) -> Outcome:
    """The outcome of a case; ``objectives`` stand in for the library's by name."""
    make, of, _ = OBJECTIVES[case.objective]
    of = (objectives or {}).get(case.objective, of)
    with jax.enable_x64(case.dtype == "float64"):
        try:
            fixed = case.points()[0]
            function = along(make(case, fixed, of), case)
            if case.transformation == "eager":
                outcome = _eager(case, function)
                if outcome is not None:
                    return outcome
            run = _compiled(case, function)
            first = run(jax.random.key(0, impl="threefry2x32"))
        # A case runs the library at random: whatever it raises is its answer, and ``_refusal`` says
        # whether users get an error of ours or one from elsewhere, which is a finding.
        except Exception as error:
            return _refusal(error)
        if first.dtype not in _dtypes(case):
            return Outcome("DTYPE", f"{first.dtype} for {case.dtype}")
        return _judged(case, run, first)


def _dtypes(case: Case) -> tuple[str, ...]:
    """Densities of half precision may be wider than draws are, and counts are not rounded to it."""
    half = case.dtype in ("bfloat16", "float16")
    drawn = case.objective == "sample" and not is_discrete(case.q)
    return (case.dtype, "float32") if half and not drawn else (case.dtype,)


def _compiled(case: Case, function: Any) -> Any:
    """A function of a key to an array of shape (points, keys, numbers)."""
    points, directions = jnp.asarray(case.points()), jnp.asarray(case.directions())

    def of_keys(numbers, direction, keys):
        if case.transformation == "scan":
            groups = keys.reshape(-1, 16)

            def step(carry, group):
                each = jax.vmap(lambda k: function(numbers, direction, k))(group)
                return carry, each

            out = jax.lax.scan(step, 0, groups)[1]
            return out.reshape(len(keys), -1)
        return jax.vmap(lambda k: function(numbers, direction, k))(keys)

    if case.transformation == "vmap":
        every = jax.jit(jax.vmap(of_keys, (0, 0, None)))
        return lambda key: np.asarray(every(points, directions, jax.random.split(key, KEYS)))
    each = jax.jit(of_keys)

    def run(key):
        keys = jax.random.split(key, KEYS)
        return np.stack([np.asarray(each(*p, keys)) for p in zip(points, directions, strict=True)])

    return run


def _eager(case: Case, function: Any) -> Outcome | None:
    """Whether jit gives what plain calls give, at one key: None if it does."""
    numbers, direction = jnp.asarray(case.points()[0]), jnp.asarray(case.directions()[0])
    results = []
    for each in (function, jax.jit(function)):
        try:
            results.append(np.asarray(each(numbers, direction, jax.random.key(1)), float))
        except Exception as error:  # any: both ways must raise the same
            results.append(error)
    plain, compiled = results
    if isinstance(plain, Exception):
        if not isinstance(compiled, Exception):
            return Outcome("UNEQUAL", f"eagerly {_line(plain)}, under jit {compiled}")
        refusal = _refusal(plain)
        if refusal.name == "refused" and _words(plain) not in _BOUNDS.sub("(...)", str(compiled)):
            return Outcome("UNEQUAL", f"eagerly {_line(plain)}, under jit {_line(compiled)}")
        return refusal
    if isinstance(compiled, Exception):
        return Outcome("UNEQUAL", f"eagerly {plain}, under jit {_line(compiled)}")
    rounding = np.array(_ROUNDING[case.dtype][: len(plain)])
    gap = np.abs(plain - compiled) <= 20 * rounding * (1 + np.abs(plain))
    if not np.all(gap | ~np.isfinite(plain) & ~np.isfinite(compiled)):
        return Outcome("UNEQUAL", f"eagerly {plain}, under jit {compiled}")
    return None


def _refusal(error: Exception) -> Outcome:
    """Ours is a ValueError or TypeError of at most three lines, raised in funcvi."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and "/funcvi/" in frames[-1].filename
    text = str(error)
    if type(error).__name__ == "JaxRuntimeError":
        inside = "/funcvi/runtime_checks.py" in text or "Error: " in text
        text = re.split(r"(?:Value|Type)Error: ", text)[-1]
        text = "\n".join(text.strip().splitlines()[:3])
    elif isinstance(error, ImportError):
        inside = True  # of numpyro, whose inverse of betainc needs another package, and says so
    elif not isinstance(error, ValueError | TypeError):
        inside = False
    if inside and 1 <= len(text.splitlines()) <= 3:
        return Outcome("refused", text)
    return Outcome("FOREIGN", f"{_line(error)} at {frames[-1].filename}:{frames[-1].lineno}")


# Bounds of supports, which messages show where they are known.
_BOUNDS = re.compile(r"\([^()]*\)")


def _words(error: Exception) -> str:
    return _BOUNDS.sub("(...)", str(error).splitlines()[0])


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _judged(case: Case, run: Any, first: np.ndarray) -> Outcome:
    """The worst outcome of all points."""
    right = answers(case)
    found = [_compared(case, a, draws) for a, draws in zip(right, first, strict=True)]
    if any(o.name == "suspect" for o in found):
        more = [first, *(run(jax.random.key(i)) for i in range(1, AGAIN))]
        many = np.concatenate(more, axis=1)
        found = [_compared(case, a, draws) for a, draws in zip(right, many, strict=True)]
        found = [o._replace(name="WRONG") if o.name == "suspect" else o for o in found]
    order = ("WRONG", "not a number", "undecided", "no oracle", "right")
    return min(found, key=lambda o: order.index(o.name) if o.name in order else -1)


def _compared(case: Case, answer: Any, draws: np.ndarray) -> Outcome:
    draws = draws.astype(float)
    value = answer.numbers[0]
    if np.isposinf(value):
        if np.isposinf(draws[:, 0].mean()):
            return Outcome("right", "infinite")
        if answer.outside * len(draws) * case.num_samples < 30:
            return Outcome("no oracle", "infinite, by mass that draws may miss")
        if not np.all(np.isfinite(draws[:, 0])):
            return Outcome("not a number", f"{draws[:, 0].mean()} for infinity")
        return Outcome("suspect", f"{draws[:, 0].mean()} for infinity")
    if not np.isfinite(value):
        return Outcome("no oracle")
    mean = draws.mean(0)
    rounding = np.array(_ROUNDING[case.dtype][: draws.shape[1]])
    outcome = Outcome("right")
    for k, exact in enumerate(answer.numbers[: draws.shape[1]]):
        place = f"derivative {k} at {case.points().tolist()}"
        if not np.isfinite(mean[k]):
            return Outcome("not a number", f"{mean[k]} for {exact}: {place}")
        if not np.isfinite(exact):
            outcome = Outcome("no oracle", f"of derivative {k}")
            continue
        squares = (draws[:, k] - mean[k]) ** 2
        error = np.sqrt(squares.mean() / (len(draws) - 1))
        size = 1 + abs(exact) + np.sqrt(np.mean(draws[:, k] ** 2))
        if abs(mean[k] - exact) <= STANDARD_ERRORS * error + rounding[k] * size:
            continue
        if len(draws) > KEYS and squares.max() > _HEAVY * squares.sum() and error > 1e-3 * size:
            outcome = Outcome("undecided", f"heavy tails: {place}")
            continue
        return Outcome("suspect", f"{mean[k]:.7g} ± {error:.2g} for {exact:.7g}: {place}")
    return outcome

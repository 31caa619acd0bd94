"""Who draws in ``sampling.py``, and the clock: every side in turn, in one process."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
from sampling_cases import Case

import funcvi as fv
from funcvi.sampling import pathwise_obstacle

try:
    import torch
except ImportError:
    torch = None
try:
    from tensorflow_probability.substrates import jax as tfp
except ImportError:
    tfp = None

__all__ = [
    "LONG",
    "SIDES",
    "SLOW",
    "Cell",
    "Device",
    "Program",
    "Timing",
    "in_turn",
    "jitted",
    "log",
    "of_another_law",
    "programs",
    "tfp",
    "torch",
]

SIDES = ("ours", "torch", "numpyro", "TFP")
LONG, SLOW = 20.0, 1.0
"""Seconds: a first call longer than LONG is kept alone; longer than SLOW, three calls are made."""
PAUSE = 0.02
"""Seconds before a side's turn, which begins with a call that is not timed."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    least: float

    @property
    def unsteady(self) -> bool:
        """Something else ran as well; torch's threads wait for each other, so it suffers most."""
        return self.median > 1.5 * self.least


Cell = Timing | str
"""A timing, or why there is none."""


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Device:
    """Where both libraries run; ``torch`` is None where it cannot run on the same device."""

    platform: str
    torch: str | None
    heading: str

    @staticmethod
    def named(name: str) -> "Device":
        """The device asked for, or the CPU where there is no other."""
        if name == "gpu":
            try:
                found = jax.devices("gpu")[0]
            except RuntimeError:
                heading = "asked for a GPU, none found: measured on CPU"
                return Device("cpu", "cpu" if torch else None, heading)
            cuda = torch is not None and torch.cuda.is_available()
            return Device("gpu", "cuda" if cuda else None, f"measured on {found.device_kind}")
        return Device("cpu", "cpu" if torch else None, "measured on CPU")

    def without_torch(self) -> str:
        """What the table says where ``torch`` is None."""
        return "not installed" if torch is None else "no CUDA"

    def synchronize(self) -> None:
        """Wait for torch."""
        if self.torch == "cuda":
            torch.cuda.synchronize()

    def release(self) -> None:
        """Give back the memory that torch keeps for later."""
        if self.torch == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Program:
    """Something to time; ``run`` returns when its result is there."""

    run: Callable[[], Any]
    lowered: Any = None
    compiled: Any = None


def in_turn(programs: Mapping[str, Program | str], repeats: int) -> dict[str, Cell]:
    """Median seconds of each, in turn: A B C A B C ... after a pause and a call to warm up."""
    cells: dict[str, Cell] = {n: p for n, p in programs.items() if isinstance(p, str)}
    times: dict[str, list[float]] = {}
    rounds: dict[str, int] = {}
    for name, program in programs.items():
        if isinstance(program, str):
            continue
        try:
            first = seconds(program.run)
        except Exception as error:  # a long table is not lost for one cell
            cells[name] = failure(name, error)
            continue
        if first > LONG:
            cells[name] = Timing(first, first)
            continue
        times[name], rounds[name] = [], repeats if first <= SLOW else min(3, repeats)
    for i in range(repeats):
        for name, found in times.items():
            if i < rounds[name]:
                if not found or found[-1] < SLOW:
                    # The threads of the side before spin for a while on our cores.
                    time.sleep(PAUSE)
                    programs[name].run()
                found.append(seconds(programs[name].run))
    return cells | {n: Timing(statistics.median(t), min(t)) for n, t in times.items()}


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def failure(name: str, error: Exception) -> str:
    log(f"  {name} failed: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
    return f"failed: {type(error).__name__}"


def jitted(function: Callable[..., Any], *arguments: Any) -> Program:
    """``function`` compiled ahead, so that no call includes it."""
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile()
    return Program(lambda: jax.block_until_ready(compiled(*arguments)), lowered, compiled)


# ---- the sides of one case ----------------------------------------------------------------------


def programs(
    case: Case, values: Mapping[str, np.ndarray], key: jax.Array, device: Device
) -> tuple[dict[str, Program | str], dict[str, Program | str]]:
    """Draws, and the value and gradient of the sum of weights times draws, for each side."""
    params = {name: jnp.asarray(x) for name, x in values.items()}
    ours = jax.eval_shape(_ours(case), params, key)
    weights = np.random.default_rng(1).standard_normal(ours.shape, dtype=np.float32)
    sides: dict[str, Callable[[], tuple[Program, Program | str]]] = {
        "ours": lambda: _jax(case, "ours", _ours(case), params, key, weights),
        "torch": lambda: _torch(case, values, weights, device),
        "numpyro": lambda: _jax(case, "numpyro", _numpyro(case), params, key, weights),
        "TFP": lambda: _jax(case, "TFP", _tfp(case), params, key, weights),
    }
    missing = {"torch": device.without_torch()} if device.torch is None else {}
    if tfp is None:
        missing["TFP"] = "not installed"
    elif case.tfp is None:
        missing["TFP"] = "has none"
    draws: dict[str, Program | str] = {}
    graded: dict[str, Program | str] = {}
    for side in SIDES:
        if side in missing:
            draws[side] = graded[side] = missing[side]
            continue
        try:
            draws[side], graded[side] = sides[side]()
        except Exception as error:  # a long table is not lost for one cell
            draws[side] = graded[side] = failure(side, error)
    return draws, graded


def _ours(case: Case) -> Callable[..., Any]:
    return lambda params, key: fv.sample(case.numpyro(nd, params), key)


def _numpyro(case: Case) -> Callable[..., Any]:
    return lambda params, key: case.numpyro(nd, params).sample(key)


def _tfp(case: Case) -> Callable[..., Any]:
    build = case.tfp
    assert build is not None
    return lambda params, key: build(tfp.distributions, params).sample(
        seed=jax.random.key_data(key)
    )


def _jax(
    case: Case, side: str, draw: Callable[..., Any], params: Any, key: jax.Array, weights: Any
) -> tuple[Program, Program | str]:
    drawn = jitted(draw, params, key)
    why = case.no_gradient.get(side)
    if why is None and side == "ours" and pathwise_obstacle(case.numpyro(nd, params)) is not None:
        why = "refused"
    if why is not None:
        return drawn, why

    def total(params: Any, key: jax.Array, weights: Any) -> jax.Array:
        return jnp.sum(weights * draw(params, key))

    try:
        return drawn, jitted(jax.value_and_grad(total), params, key, jnp.asarray(weights))
    except Exception as error:
        return drawn, failure(f"{side} gradient", error)


def _torch(
    case: Case, values: Mapping[str, np.ndarray], weights: np.ndarray, device: Device
) -> tuple[Program, Program | str]:
    params = {name: torch.from_numpy(x).to(device.torch) for name, x in values.items()}
    factors = torch.from_numpy(weights).to(device.torch)
    fixed = case.torch(torch.distributions, params)

    def draws() -> Any:
        with torch.no_grad():
            x = fixed.sample()
        device.synchronize()
        return x

    def graded() -> Any:
        leaves = {name: x.detach().requires_grad_() for name, x in params.items()}
        total = (factors * case.torch(torch.distributions, leaves).rsample()).sum()
        total.backward()
        device.synchronize()
        return total, [x.grad for x in leaves.values()]

    return Program(draws), Program(graded) if fixed.has_rsample else "no rsample"


def of_another_law(draws: Mapping[str, Program | str]) -> set[str]:
    """Sides whose draws are not of the distribution that ours are of, entry by entry.

    For the moderate set: in the wide one float32 underflows, in each library in its own way.
    """
    samples = {}
    for side, program in draws.items():
        if isinstance(program, Program):
            x = program.run()[:100_000]
            x = np.asarray(x.cpu() if side == "torch" else x)
            samples[side] = np.sort(x.reshape(len(x), -1).round(5), axis=0).T
    ours = samples.pop("ours", np.zeros((0, 0)))
    found = set()
    for side, theirs in samples.items():
        gap = max((_distance(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
        if gap > 5 / math.sqrt(ours.shape[1]):  # by chance with a probability below 1e-9
            log(f"  {side} draws from another law: distance {gap:.3f}")
            found.add(side)
    return found


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's, between two sorted samples of the same size."""
    below = (np.searchsorted(x, np.concatenate([a, b]), "right") for x in (a, b))
    return float(np.max(np.abs(np.subtract(*below)))) / len(a)

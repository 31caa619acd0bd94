"""How near our samplers are to what the machine can do: bytes to move, operations to make."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as nd
from sampling_cases import Case
from sampling_sides import Program, Timing, jitted, seconds

import funcvi as fv
from funcvi.sampling import noise

__all__ = ["Limit", "Machine", "limit_of", "limits_table"]


@dataclass(frozen=True)
class Machine:
    """Measured rates, each a second."""

    bytes: float
    operations: float
    transcendentals: float

    @staticmethod
    def measured(platform: str) -> "Machine":
        """The best of several calls: a peak."""
        gpu = platform == "gpu"
        return Machine(_copied(2**28 if gpu else 2**26), *_computed(2**26 if gpu else 2**20))

    def words(self) -> str:
        """For the text above the table."""
        return (
            f"{self.bytes / 1e9:.1f} GB/s copied, {self.operations / 1e9:.0f} billion operations/s "
            "in fused multiply-adds (two each), "
            f"{self.transcendentals / 1e9:.2f} billion exponentials/s"
        )


def _copied(size: int) -> float:
    """Bytes a second of x + 1, read and written, in place."""
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = [jax.block_until_ready(step(jnp.zeros(size, jnp.float32)))]

    def run() -> None:
        x[0] = jax.block_until_ready(step(x[0]))

    return 8 * size / _least(run)


def _computed(size: int, chains: int = 16) -> tuple[float, float]:
    """Operations and exponentials a second, on an array much cheaper to move than to work on.

    In chains that do not wait for each other.
    """
    x = jnp.linspace(-1.0, 1.0, size)

    def repeated(times: int, step: Callable[[Any, Any, int], Any]) -> float:
        def function(x: Any) -> Any:
            values = [x + k for k in range(chains)]
            for i in range(times):
                values = [step(value, x, i + k) for k, value in enumerate(values)]
            return sum(values[1:], values[0])

        return times * chains * size / _least(jitted(function, x).run)

    multiply_adds = repeated(16, lambda value, x, i: value * x + 0.1 * i)
    return 2 * multiply_adds, repeated(4, lambda value, x, i: jnp.exp(-0.1 * value))


def _least(run: Any, repeats: int = 20) -> float:
    return min(seconds(run) for _ in range(repeats))


@dataclass(frozen=True)
class Limit:
    """Of one program, for each entry drawn."""

    name: str
    what: str
    entries: int
    needed: float
    moved: float
    hashes: float
    operations: float
    transcendentals: float
    measured: float

    def row(self, machine: Machine) -> str:
        """Of the table."""
        moving = self.needed / machine.bytes
        computing = (
            self.operations / machine.operations + self.transcendentals / machine.transcendentals
        )
        limit = max(moving, computing)
        each = self.measured / self.entries
        kind = "memory" if moving > computing else "arithmetic"
        hashes = f"{self.hashes:.2f}" if self.hashes else "numpyro's"
        return (
            f"| {self.name} | {self.what} | {self.needed:.0f} | {self.moved:.0f} | {hashes} | "
            f"{self.operations:.0f} | {self.transcendentals:.1f} | {kind} | {1e9 * limit:.3f} | "
            f"{1e9 * each:.3f} | {each / limit:.1f} | {moving / each:.0%} |"
        )


def limit_of(
    case: Case, values: Mapping[str, Any], what: str, program: Program, timing: Timing
) -> Limit:
    """``what`` is "draws" or "gradient", ``program`` ours."""
    hashes, shape = _hashes(case, values)
    entries = prod(shape)
    floats = sum(x.size for x in values.values())
    before, after = _cost(program.lowered), _cost(program.compiled)
    # Parameters are read; draws are written, or weights read and gradients written.
    needed = 4 * (floats + entries if what == "draws" else 2 * floats + entries)
    # Before fusion nothing is made twice, after it nothing is made in vain: the smaller is needed.
    work = [min(before[name], after[name]) for name in ("flops", "transcendentals")]
    per_entry = [x / entries for x in (needed, after["bytes accessed"], hashes, *work)]
    return Limit(case.name, what, entries, *per_entry, timing.median)


def _cost(program: Any) -> Mapping[str, float]:
    found = program.cost_analysis() or {}
    if isinstance(found, (list, tuple)):  # one for each computation in older versions of jax
        found = found[0] if found else {}
    return {n: found.get(n, 0.0) for n in ("flops", "transcendentals", "bytes accessed")}


def _hashes(case: Case, values: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """How many hashes our draws take, none if numpyro's own sampler draws; and their shape."""
    with _counted_words() as counted:
        drawn = jax.eval_shape(
            lambda params, key: fv.sample(case.numpyro(nd, params), key),
            dict(values),
            jax.random.key(0),
        )
    return sum(counted), drawn.shape


@contextmanager
def _counted_words() -> Iterator[list[int]]:
    counted: list[int] = []
    words = noise.words

    def counting(key: Any, shape: tuple[int, ...], stream: int = 0) -> Any:
        counted.append(prod(shape))
        return words(key, shape, stream)

    noise.words = counting
    try:
        yield counted
    finally:
        noise.words = words


def limits_table(limits: list[Limit], machine: Machine) -> list[str]:
    return [
        "| distribution | what | bytes needed | bytes moved | hashes | operations | "
        "transcendentals | bound by | limit, ns | measured, ns | times the limit | "
        "share of copy bandwidth |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(limit.row(machine) for limit in limits),
    ]

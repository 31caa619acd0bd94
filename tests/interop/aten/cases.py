"""Cases with inputs of their own, checked by the laws of ``check.py``, many in one export."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch

from interop import to_jax
from tests.interop.aten.check import WIDE, All, _equal, _tensors, _weights


@dataclass(frozen=True)
class Case:
    """A function of tensors and its inputs in single precision."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    gradient: bool = True
    tolerance: float = 1.0


def grouped(cases: Sequence[Case], size: int = 12) -> Any:
    """Decorates a test of ``group`` and ``wide``; a group is one export, double precision slow."""
    groups = [cases[at : at + size] for at in range(0, len(cases), size)]
    double = pytest.param(True, id="float64", marks=pytest.mark.slow)
    precision = pytest.mark.parametrize("wide", [pytest.param(False, id="float32"), double])
    return lambda test: precision(
        pytest.mark.parametrize("group", groups, ids=lambda group: f"{group[0].name} and on")(test)
    )


def check_cases(cases: Sequence[Case], wide: bool) -> None:
    """Asserts for each case torch's values, dtypes, shapes and gradients."""
    with jax.enable_x64(wide):
        _check_cases(cases, wide)


def _is_smooth(x: torch.Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _check_cases(cases: Sequence[Case], wide: bool) -> None:
    inputs = [
        [x.detach().to(WIDE.get(x.dtype, x.dtype) if wide else x.dtype).clone() for x in c.inputs]
        for c in cases
    ]
    arrays = [[jnp.asarray(x.resolve_conj().numpy()) for x in own] for own in inputs]
    moving = [
        [i for i, x in enumerate(own) if c.gradient and _is_smooth(x)]
        for c, own in zip(cases, inputs, strict=True)
    ]
    for own, places in zip(inputs, moving, strict=True):
        for i in places:
            own[i].requires_grad_()
    expected = [_tensors(c.function(*own)) for c, own in zip(cases, inputs, strict=True)]
    smooth = [[x.requires_grad for x in outputs] for outputs in expected]
    net = to_jax(All({str(i): c.function for i, c in enumerate(cases)}), downcast=not wide)

    @jax.jit
    def both(moved: list[list[jax.Array]]) -> Any:
        def total(moved: list[list[jax.Array]]) -> Any:
            given = [list(own) for own in arrays]
            for own, places, values in zip(given, moving, moved, strict=True):
                for i, x in zip(places, values, strict=True):
                    own[i] = x
            found = [jax.tree.leaves(outputs) for outputs in net({}, *given)]
            summed = jnp.zeros(())
            for outputs, kinds in zip(found, smooth, strict=True):
                for x, s in zip(outputs, kinds, strict=True):
                    summed += jnp.real(jnp.sum(x * _weights(x))) if s else 0.0
            return summed, found

        gradients, found = jax.grad(total, has_aux=True)(moved)
        return found, jax.tree.map(jnp.conj, gradients)  # torch's convention

    start = [[own[i] for i in places] for own, places in zip(arrays, moving, strict=True)]
    found, gradients = both(start)
    wrong = []
    for case, *parts in zip(cases, inputs, moving, expected, found, gradients, strict=True):
        try:
            _compare(case, *parts, wide=wide)
        except AssertionError as error:
            wrong.append(f"{case.name}: {error}")
    assert not wrong, "\n".join(wrong)


def _compare(
    case: Case,
    inputs: list[torch.Tensor],
    places: list[int],
    want: list[torch.Tensor],
    have: list[Any],
    slopes: list[Any],
    *,
    wide: bool,
) -> None:
    eps = case.tolerance * (1e-10 if wide else 1e-5)
    assert len(want) == len(have)
    for w, h in zip(want, have, strict=True):
        if wide:
            assert h.dtype.name == str(w.dtype).removeprefix("torch.")
        assert h.shape == tuple(w.shape)
        _equal(h, w, eps, "value")
    moved = [w for w in want if w.requires_grad]
    if moved:
        total = sum((w * torch.from_numpy(_weights(w))).sum() for w in moved)
        expected = torch.autograd.grad(
            total.real, [inputs[i] for i in places], materialize_grads=True
        )
        for w, h in zip(expected, slopes, strict=True):
            _equal(h, w, 20 * eps, "gradient")

"""Numbers that forward takes from a tensor: as values they work, as sizes they are refused."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import interop
from tests.interop.module_cases import Of

SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "split": lambda x, n: x.split([n.item(), 3 - n.item()])[0],
    "split by a list": lambda x, n: x.split(torch.stack([n, 3 - n]).tolist())[0],
    "zeros": lambda x, n: torch.zeros(n.item()) + x.sum(),
    "slice": lambda x, n: x[: n.item()],
    "repeat": lambda x, n: x.repeat(n.item()),
    "view": lambda x, n: x.view(n.item(), -1),
    "expand": lambda x, n: x[:, None].expand(-1, n.item()),
    "pad": lambda x, n: F.pad(x, (0, n.item())),
    "tril": lambda x, n: torch.tril(torch.ones(3, 3), n.item()) @ x,
    "topk": lambda x, n: x.topk(n.item())[0],
    "eye": lambda x, n: torch.eye(n.item()) + x.sum(),
    "repeat_interleave": lambda x, n: torch.repeat_interleave(x, n.item()),
}


def converted(function: Callable[[Any, Any], Any]) -> Any:
    return interop.to_jax(Of(lambda _, x, n: function(x, n)))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_refused_by_the_operation_and_its_line(name: str) -> None:
    with pytest.raises(interop.ConversionError, match=r"\.py:\d+"):
        converted(SIZES[name])({}, jnp.arange(3.0), jnp.array(1))


@pytest.mark.parametrize("name", ["a set of lengths", "a mask's places"])
def test_static_values_are_named_as_the_way_out_and_are_one(name: str) -> None:
    function = {
        "a set of lengths": lambda x, n: x if len(set(n.tolist())) > 1 else -x,
        "a mask's places": lambda x, n: x[torch.nonzero(n > 1).flatten()],
    }[name]
    counts = jnp.array([1, 2, 2])
    with pytest.raises(interop.ConversionError, match=r"as\s+interop.Static"):
        converted(function)({}, jnp.arange(3.0), counts)
    found = converted(function)({}, jnp.arange(3.0), interop.Static(counts))
    np.testing.assert_array_equal(found, function(torch.arange(3.0), torch.tensor([1, 2, 2])))


def test_a_static_size_is_known() -> None:
    net = converted(SIZES["split by a list"])
    for n in (1, 2):
        found = net({}, jnp.arange(3.0), interop.Static(jnp.array(n)))
        np.testing.assert_array_equal(found, np.arange(n))


VALUES: dict[str, Callable[[Any, Any], Any]] = {
    "product": lambda x, n: x * n.item(),
    "power": lambda x, n: x ** n.item(),
    "index": lambda x, n: x[n.item()],
    "roll": lambda x, n: torch.roll(x, n.item()),
    "full": lambda x, n: torch.full((2,), n.item()) * x.sum(),
    "at least one": lambda x, n: x.sum() / max(n.item(), 1),
    "at most one": lambda x, n: x.sum() * min(n.item(), 1),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_torchs(name: str) -> None:
    net = jax.jit(converted(VALUES[name]))
    for n in (1, 2):
        expected = VALUES[name](torch.arange(3.0), torch.tensor(n))
        np.testing.assert_allclose(net({}, jnp.arange(3.0), jnp.array(n)), expected, rtol=1e-6)

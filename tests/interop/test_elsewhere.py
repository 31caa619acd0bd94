"""Memory outside the module: what forward leaves in defaults, closures and globals is refused."""

from collections import deque
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop

HISTORY: list[torch.Tensor] = []
TABLES: dict[int, torch.Tensor] = {}
CALLS = {"count": 0}
STATE: Any = None


class Default(torch.nn.Module):
    def forward(self, x: torch.Tensor, memory: Any = []) -> torch.Tensor:  # noqa: B006
        memory.append(x)
        return sum(memory)


class Keyword(torch.nn.Module):
    def forward(self, x: torch.Tensor, *, memory: Any = deque(maxlen=2)) -> torch.Tensor:  # noqa: B006
        memory.append(x)
        return sum(memory)


class Global(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        HISTORY.append(x)
        return torch.stack(HISTORY).sum(0)


class Rebound(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global STATE
        STATE = x if STATE is None else STATE + x
        return STATE


class Counted(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS["count"] += 1
        return x * CALLS["count"]


class InMethod(torch.nn.Module):
    def remember(self, x: torch.Tensor) -> torch.Tensor:
        HISTORY.append(x)
        return HISTORY[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.remember(x)


def around() -> torch.nn.Module:
    state: Any = None

    class Around(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal state
            state = x if state is None else state + x
            return state

    return Around()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Default, "the default of forward's 'memory'"),
        (Keyword, "the default of forward's 'memory'"),
        (Global, "the global 'HISTORY'"),
        (Rebound, "the global 'STATE'"),
        (Counted, "the global 'CALLS'"),
        (InMethod, "the global 'HISTORY'"),
        (around, "'state' around forward"),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_memory_elsewhere_is_refused_and_put_back(make: Any, name: str, within: bool) -> None:
    module = torch.nn.Sequential(make()) if within else make()
    net = interop.to_jax(module)
    with pytest.raises(interop.ConversionError, match=f"forward keeps {name} for its next call"):
        net({}, jnp.ones(3))
    with pytest.raises(interop.ConversionError, match=name):  # still
        net({}, jnp.ones(3))
    assert not HISTORY
    assert STATE is None
    assert CALLS == {"count": 0}


class Table(torch.nn.Module):
    """Keeps a constant by its size, and counts what it does not read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS["count"] += 1
        if len(x) not in TABLES:
            TABLES[len(x)] = torch.arange(len(x)).cos()
        return x * TABLES[len(x)]


def test_constants_and_counters_that_change_nothing_are_allowed() -> None:
    net = interop.to_jax(Table())
    np.testing.assert_allclose(net({}, jnp.ones(3)), np.cos(np.arange(3)), rtol=1e-6)
    assert not TABLES
    assert CALLS == {"count": 0}
    x = torch.ones(3)
    assert torch.equal(Table()(x), torch.arange(3).cos())  # no stand-in is left for torch
    TABLES.clear()
    CALLS["count"] = 0


def test_code_without_a_module_is_looked_at_too() -> None:
    table: dict[str, Any] = {"torch": torch, "seen": []}
    exec("def forward(x):\n    seen.append(x)\n    return sum(seen)", table)
    module = torch.nn.Module()
    module.forward = table["forward"]
    module.forward.__module__ = None
    with pytest.raises(interop.ConversionError, match="the global 'seen'"):
        interop.to_jax(module)({}, jnp.ones(3))
    assert table["seen"] == []

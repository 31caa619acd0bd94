"""A refusal says it all: torch prints and logs nothing beside it, and other threads may log."""

import logging
import threading
from typing import Any

import jax.numpy as jnp
import pytest
import torch

import interop
from interop.from_torch.quiet import quiet
from tests.interop.module_cases import Of


def experts(m: Any, x: Any) -> Any:
    out = torch.zeros_like(x)
    chosen = x.argmax(-1)
    for expert in (chosen[:, None] == torch.arange(3)).sum(0).nonzero():
        rows = torch.where(chosen == expert[0])[0]
        out.index_add_(0, rows, x[rows] * 2)
    return out


REFUSED: dict[str, Any] = {
    "a branch": lambda m, x: x if x.sum() > 0 else -x,
    "a size": lambda m, x: torch.zeros(int(x.sum())),
    "a loop": lambda m, x: [x for _ in range(int(x.sum()))],
    "experts": experts,
    "a check": lambda m, x: x if (x == x).all() else None,
    "shapes that do not fit": lambda m, x: x[0] @ torch.ones(7),
    "a kernel that fails": lambda m, x: torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3)),
    "a Python error": lambda m, x: x.nothing,
    "numpy": lambda m, x: torch.from_numpy(x.numpy()),
    "nonzero": lambda m, x: x.nonzero(),
    "a mask": lambda m, x: x[x > 0],
    "unique": lambda m, x: torch.unique(x),
    "branches of other shapes": lambda m, x: torch.cond(
        x.sum() > 0, lambda x: x.sum(), lambda x: x * 2, (x,)
    ),
    "a branch in a branch": lambda m, x: torch.cond(
        x.sum() > 0, lambda x: x if x[0, 0] > 0 else -x, lambda x: x * 2, (x,)
    ),
    "torch.func": lambda m, x: torch.func.grad(lambda y: y.square().sum())(x),
    "state": lambda m, x: (setattr(m, "c", getattr(m, "c", 0) + x), m.c)[1],
    "sparse": lambda m, x: x.to_sparse(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_printed_beside_a_refusal(name: str, capfd: Any) -> None:
    net = interop.to_jax(Of(REFUSED[name]))
    with pytest.raises(interop.ConversionError) as raised:
        net({}, jnp.ones((4, 3)))
    out, err = capfd.readouterr()
    # XLA may print as it loads a program from the cache.
    assert out == "" == "".join(x for x in err.splitlines() if "cpu_aot_loader.cc" not in x)
    assert len(str(raised.value)) < 1000


def test_a_loop_over_experts_names_the_way() -> None:
    with pytest.raises(interop.ConversionError, match="go over all and weight each by its mask"):
        interop.to_jax(Of(experts))({}, jnp.ones((4, 3)))


def test_only_the_exporting_thread_is_quiet(capfd: Any) -> None:
    handler = logging.StreamHandler()
    logger = logging.getLogger("torch.interop_test")
    logger.addHandler(handler)
    logger.propagate = False
    before = list(handler.filters)
    try:
        with quiet():
            logger.error("ours")
            other = threading.Thread(target=logger.error, args=("theirs",))
            other.start()
            other.join()
        logger.error("after")
    finally:
        logger.removeHandler(handler)
    assert capfd.readouterr().err.split() == ["theirs", "after"]
    assert handler.filters == before

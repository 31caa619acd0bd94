"""torch.cond, while_loop, scan and map: values, gradients, random numbers inside."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch._higher_order_ops import map as torch_map
from torch._higher_order_ops import scan as torch_scan
from torch._higher_order_ops import while_loop as torch_while

import interop
from tests.interop.module_cases import KEY, Of, agree, array, numbers


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cond_runs_one_branch(sign: float) -> None:
    def forward(m: Any, x: Any) -> Any:
        return torch.cond(
            x.sum() > 0, lambda x: torch.sin(x) * m.w, lambda x: torch.cos(x) + m.w, (x,)
        )

    agree(Of(forward, w=numbers(3)), sign * numbers(4, 3).abs())


def test_cond_of_nested_conditions() -> None:
    def inner(x: Any) -> Any:
        return torch.cond(x.max() > 2, lambda x: x * 2, lambda x: x + 2, (x,))

    def forward(_: Any, x: Any) -> Any:
        return torch.cond(x.sum() > 0, inner, lambda x: -x, (x,))

    for scale in (-1.0, 0.1, 10.0):
        agree(Of(forward), scale * numbers(4, 3).abs())


def test_while_loop_ends_where_torch_ends() -> None:
    def forward(_: Any, x: Any) -> Any:
        return torch_while(
            lambda i, y: y.norm() < 10, lambda i, y: (i + 1, y * 1.5), (torch.tensor(0), x)
        )

    net = interop.to_jax(Of(forward))
    for scale in (0.1, 1.0, 100.0):
        x = scale * numbers(3)
        steps, end = net({}, array(x))
        expected = forward(None, x)
        assert int(steps) == int(expected[0])
        np.testing.assert_allclose(end, expected[1], rtol=1e-5)


def test_scan_has_gradients() -> None:
    def forward(m: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            carry = torch.tanh(carry * m.w + x)
            return carry, carry * 2

        last, every = torch_scan(step, torch.zeros(3), xs)
        return torch.cat([last[None], every])

    net = interop.to_jax(Of(forward, w=numbers(3)))
    xs, w = numbers(5, 3, seed=1), numbers(3).requires_grad_()
    carry, found = torch.zeros(3), []
    for x in xs:
        carry = torch.tanh(carry * w + x)
        found.append(carry * 2)
    expected = torch.cat([carry[None], torch.stack(found)])
    expected.sin().sum().backward()
    np.testing.assert_allclose(net(net.params, array(xs)), expected.detach(), rtol=1e-5)
    slope = jax.grad(lambda p: jnp.sin(net(p, array(xs))).sum())(net.params)["w"]
    np.testing.assert_allclose(slope, w.grad, rtol=1e-4, atol=1e-6)


def test_map_over_the_first_axis() -> None:
    def forward(m: Any, xs: Any) -> Any:
        return torch_map(lambda x, w: torch.sin(x) * w, xs, m.w)

    net = interop.to_jax(Of(forward, w=numbers(3)))
    xs = numbers(5, 3, seed=1)
    np.testing.assert_allclose(
        net(net.params, array(xs)), torch.sin(xs) * numbers(3), rtol=1e-5, atol=1e-6
    )


def test_random_numbers_differ_between_iterations_and_calls() -> None:
    def forward(_: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            return carry.clone(), x + torch.rand_like(x)

        return torch_scan(step, torch.zeros(()), xs)[1] + torch.rand_like(xs)

    net = interop.to_jax(Of(forward))
    found = net({}, jnp.zeros((6, 4)), key=KEY)
    assert len(np.unique(found)) == 24
    assert jnp.all(found == net({}, jnp.zeros((6, 4)), key=KEY))


def test_checkpointed_regions_are_run() -> None:
    def forward(m: Any, x: Any) -> Any:
        return torch.utils.checkpoint.checkpoint(
            lambda y: torch.sin(y * m.w), x, use_reentrant=False
        )

    agree(Of(forward, w=numbers(3)), numbers(4, 3, seed=1))


def test_autocast_rounds_as_torch_does() -> None:
    def forward(m: Any, x: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return x @ x

    x = numbers(3, 3)
    found = interop.to_jax(Of(forward))({}, array(x))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(jnp.float32), forward(None, x).float(), rtol=1e-2, atol=1e-2
    )

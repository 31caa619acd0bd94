"""Control flow: torch's higher-order operations as lax's, and regions that only change modes."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


@rules("higher_order.wrap_with_set_grad_enabled")
def set_grad_enabled(enabled: bool, program: Any, *inputs: Any, body: Any) -> Any:
    found = body(program, *inputs)
    return found if enabled else jax.lax.stop_gradient(found)


@rules("higher_order.wrap_with_autocast")
def autocast(
    kind: Any, dtype: Any, enabled: bool, cache: Any, program: Any, *inputs: Any, body: Any
) -> Any:
    if enabled:
        raise ConversionError("autocast inside forward is not covered: cast explicitly")
    return body(program, *inputs)


@rules("higher_order.wrap_activation_checkpoint", "higher_order.tag_activation_checkpoint")
def checkpoint(program: Any, *inputs: Any, body: Any, **_: Any) -> Any:
    return jax.checkpoint(lambda *x: body(program, *x))(*inputs)


@rules("higher_order.cond")
def cond(condition: Any, yes: Any, no: Any, inputs: Any = (), *, body: Any) -> Any:
    branches = (lambda x: tuple(body(yes, *x)), lambda x: tuple(body(no, *x)))
    return jax.lax.cond(jnp.reshape(condition, ()), *branches, tuple(inputs))


@rules("higher_order.while_loop")
def while_loop(
    condition: Any, program: Any, carried: Any, constants: Any = (), *, body: Any
) -> Any:
    def proceed(state: Any) -> Any:
        step, values = state
        return jnp.reshape(body(condition, *values, *constants, index=2 * step)[0], ())

    def once(state: Any) -> Any:
        step, values = state
        return step + 1, tuple(body(program, *values, *constants, index=2 * step + 1))

    return jax.lax.while_loop(proceed, once, (jnp.zeros((), jnp.int32), tuple(carried)))[1]


@rules("higher_order.scan")
def scan(program: Any, initial: Any, xs: Any, constants: Any = (), *, body: Any) -> Any:
    count = len(initial)

    def once(state: Any, slices: Any) -> Any:
        step, values = state
        found = tuple(body(program, *values, *slices, *constants, index=step))
        return (step + 1, found[:count]), found[count:]

    (_, last), stacked = jax.lax.scan(once, (jnp.zeros((), jnp.int32), tuple(initial)), tuple(xs))
    return (*last, *stacked)


@rules("higher_order.map_impl", "higher_order.map")
def map_impl(program: Any, xs: Any, constants: Any = (), *, body: Any) -> Any:
    def once(step: Any, slices: Any) -> Any:
        return step + 1, tuple(body(program, *slices, *constants, index=step))

    return jax.lax.scan(once, jnp.zeros((), jnp.int32), tuple(xs))[1]

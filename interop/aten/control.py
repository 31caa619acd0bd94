"""Control flow: torch's higher-order operations as lax's, and regions that only change modes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


@rules("interop.function.default", "interop.hooked.default")
def function(
    tensors: Any,
    forward: Any,
    of_forward: Any,
    backward: Any,
    of_backward: Any,
    count: int,
    saved: Any,
    *,
    body: Any,
) -> Any:
    """A ``torch.autograd.Function``: programs of both directions, each with its constants.

    ``forward`` gives ``count`` outputs and then what ``backward`` takes first. Of that ``saved``
    tells what is an input, by its place, or an output, by its place after the inputs; for the rest,
    None, torch knows no further derivative.
    """

    @jax.custom_vjp
    def call(*inputs: Any) -> Any:
        return tuple(body(forward, *of_forward, *inputs)[:count])

    def with_saved(*inputs: Any) -> Any:
        outputs = call(*inputs)
        rest = jax.lax.stop_gradient(tuple(body(forward, *of_forward, *inputs)[count:]))
        known = (*inputs, *outputs)
        kept = [x if at is None else known[at] for x, at in zip(rest, saved, strict=True)]
        return outputs, (inputs, outputs, kept)

    def slopes(residuals: Any, gradients: Any) -> Any:
        inputs, outputs, kept = residuals
        pairs = zip(gradients, outputs, strict=True)
        # torch's gradient of a complex number is the conjugate of JAX's.
        dense = [jnp.zeros_like(x) if g.dtype == jax.dtypes.float0 else g.conj() for g, x in pairs]
        found = body(backward, *of_backward, *kept, *dense, index=1)
        return tuple(_slope(g, x) for g, x in zip(found, inputs, strict=True))

    call.defvjp(with_saved, slopes)
    return call(*tensors)


def _slope(gradient: Any, x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return np.zeros(x.shape, jax.dtypes.float0)
    return jnp.zeros_like(x) if gradient is None else gradient.astype(x.dtype).conj()


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

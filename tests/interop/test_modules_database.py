"""torch's own module database: values, gradients for parameters and inputs, and buffers, jitted.

Every module type and every float32 input, in training and evaluation where they differ. Inputs of
one structure (the same module, shapes and options) share one export and one compiled function.
Nothing in the database is random as it is used here: its modules have no dropout in training, and
FractionalMaxPool's random samples are given (in float64, which torch itself refuses beside float32
inputs: they are cast).
"""

import copy
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils import _pytree as tree

from interop import to_jax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

EXCEPTIONS: dict[str, str] = {}
"""Module types that do not convert, with the reason; at most three."""

DOUBLE = {"nn.CTCLoss"}
"""Types whose gradients torch itself gets wrong by 1e-4 in float32: compared with its float64."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Half the time to compile."""

VALUES, GRADIENTS = 1e-5, 1e-4


@functools.cache
def _inputs(name: str) -> list[tuple[bool, Any]]:
    """(training, input) of one type, the same in every process."""
    info = next(i for i in module_db if i.name == name)
    found = []
    for training in (True, False) if info.train_and_eval_differ else (False,):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
            )
        found += [(training, x) for x in inputs if x.forward_input is not None]
    return found


def _parts() -> list[Any]:
    parts = []
    for info in module_db:
        count = LARGE.get(info.name, 1)
        for part in range(count):
            marks = [pytest.mark.slow] if info.name in SLOW else []
            parts.append(
                pytest.param(info.name, part, count, id=f"{info.name[3:]}-{part}", marks=marks)
            )
    return parts


LARGE = {
    "nn.LinearCrossEntropyLoss": 8,
    "nn.MultiheadAttention": 4,
    "nn.CrossEntropyLoss": 3,
    "nn.CTCLoss": 2,
    "nn.Transformer": 4,
    "nn.TransformerEncoderLayer": 3,
    "nn.TransformerDecoderLayer": 4,
    "nn.TransformerEncoder": 2,
    "nn.LSTM": 3,
    "nn.GRU": 2,
    "nn.RNN": 3,
}
"""Types of many inputs, in several tests, so that they spread over workers."""

SLOW = {*LARGE, "nn.InstanceNorm1d", "nn.InstanceNorm2d", "nn.NLLLoss"} - {"nn.GRU"}


def test_exceptions_are_few_and_explained():
    assert len(EXCEPTIONS) <= 3
    assert all(EXCEPTIONS.values())
    assert EXCEPTIONS.keys() <= {info.name for info in module_db}
    assert len(module_db) >= 114


@pytest.mark.few(32)
@pytest.mark.parametrize(("name", "part", "count"), _parts())
def test_agrees_with_torch(name, part, count):
    if name in EXCEPTIONS:
        pytest.xfail(EXCEPTIONS[name])
    info = next(i for i in module_db if i.name == name)
    compiled: dict[Any, Any] = {}
    structures = [(_structure(t, x), t, x) for t, x in _inputs(name)]
    order = {s: i for i, s in enumerate(dict.fromkeys(s for s, _, _ in structures))}
    own = [(s, t, x) for s, t, x in structures if order[s] % count == part]
    assert own
    for structure, training, given in own:
        _compare(info, training, given, compiled, structure)


def _structure(training: bool, given: Any) -> str:
    """All but the values of tensors."""

    def of(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return f"{x.dtype}{list(x.shape)}"
        if isinstance(x, torch.nn.Module):
            parts = [(type(m).__name__, of(dict(m.__dict__))) for m in x.modules()]
            return parts, [of(p) for p in x.parameters()]
        if isinstance(x, dict):
            plain = (bool, int, float, str, tuple, list, torch.Tensor, type(None), torch.nn.Module)
            return [(k, of(v)) for k, v in x.items() if isinstance(v, plain)]
        return [of(v) for v in x] if isinstance(x, list | tuple) else repr(x)

    each = (given.constructor_input, given.forward_input)
    return repr((training, [(of(e.args), of(e.kwargs)) for e in each]))


def _compare(info: Any, training: bool, given: Any, compiled: dict[Any, Any], at: Any) -> None:
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs)
    module = module.to(torch.float32).train(training)
    args, kwargs = given.forward_input.args, given.forward_input.kwargs
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        module(*args, **kwargs)
    what = f"{given.desc!r} {'training' if training else 'evaluation'}"
    net = to_jax(module)
    leaves, spec = tree.tree_flatten((args, kwargs))
    expected, gradients, buffers, moving, weights = _of_torch(
        module, leaves, spec, info.name in DOUBLE
    )
    arrays = [_array(x) if isinstance(x, torch.Tensor) else x for x in leaves]
    slots = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]
    if at not in compiled:
        compiled[at] = _compiled(net, training, arrays, slots, moving, spec)
    moved = [arrays[i] for i in moving]
    others = [arrays[i] for i in slots if i not in moving]
    (_, (outputs, after)), slopes = compiled[at](net.params, moved, net.buffers, others, weights)
    assert len(outputs) == len(expected), what
    for have, want in zip(outputs, expected, strict=True):
        _close(have, want, VALUES, f"{what}: value")
    size = max([float(np.abs(g).max(initial=0)) for g in gradients.values()], default=0.0)
    found = {**slopes[0], **dict(zip(map(str, moving), slopes[1], strict=True))}
    assert found.keys() == gradients.keys(), what
    for name, want in gradients.items():
        _close(found[name], want, GRADIENTS, f"{what}: gradient of {name}", 1e-2 * size)
    if training:
        assert after.keys() == buffers.keys()
        for name, want in buffers.items():
            _close(after[name], want, VALUES, f"{what}: buffer {name}")


def _of_torch(module: Any, leaves: list[Any], spec: Any, double: bool) -> Any:
    """What torch gives: outputs, gradients by name or position, buffers after, and the weights."""
    module = copy.deepcopy(module)
    floats = [i for i, x in enumerate(leaves) if _is_float(x)]
    for moving in (floats, floats[:1]):  # some losses have no gradient for their target
        given = list(leaves)
        for i in moving:
            given[i] = (leaves[i].double() if double else leaves[i].clone()).requires_grad_()
        args, kwargs = tree.tree_unflatten(given, spec)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outputs = [x for x in tree.tree_leaves(module(*args, **kwargs)) if _is_tensor(x)]
            break
        except RuntimeError as error:
            if "derivative" not in str(error) and "differentiable" not in str(error):
                raise
    random = torch.Generator().manual_seed(2)
    weights = [
        torch.randn(x.shape, generator=random) if _is_float(x) else torch.zeros(()) for x in outputs
    ]
    total = [(x * w).sum() for x, w in zip(outputs, weights, strict=True) if x.requires_grad]
    named = {**dict(module.named_parameters()), **{str(i): given[i] for i in moving}}
    slopes = {n: torch.zeros_like(x) for n, x in named.items()}
    if total and named:
        found = torch.autograd.grad(sum(total), list(named.values()), materialize_grads=True)
        slopes = dict(zip(named, found, strict=True))
    buffers = {n: b.numpy() for n, b in module.named_buffers()}
    outputs = [x.detach().numpy() for x in outputs]
    gradients = {n: g.float().numpy() for n, g in slopes.items()}
    return outputs, gradients, buffers, moving, [w.numpy() for w in weights]


def _compiled(
    net: Any, training: bool, arrays: list[Any], slots: list[int], moving: list[int], spec: Any
) -> Any:
    static = [None if i in slots else x for i, x in enumerate(arrays)]

    def total(params: Any, moved: Any, buffers: Any, others: Any, weights: Any) -> Any:
        given = list(static)
        rest = iter(others)
        for i in slots:
            given[i] = moved[moving.index(i)] if i in moving else next(rest)
        args, kwargs = tree.tree_unflatten(given, spec)
        if training:
            outputs, after = net.train(params, *args, buffers=buffers, **kwargs)
        else:
            outputs, after = net(params, *args, buffers=buffers, **kwargs), buffers
        outputs = jax.tree.leaves(outputs)
        terms = [
            jnp.sum(x * w)
            for x, w in zip(outputs, weights, strict=True)
            if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        return sum(terms, jnp.zeros(())), (outputs, after)

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True), compiler_options=QUICK)


def _close(have: Any, want: np.ndarray, tolerance: float, what: str, floor: float = 0) -> None:
    """Apart by no more than a share of the largest magnitude."""
    have = np.asarray(have)
    assert have.shape == want.shape, what
    finite = np.abs(want[np.isfinite(want)])
    size = max(float(finite.max(initial=0)), floor, 1e-30)
    np.testing.assert_allclose(have, want, rtol=0, atol=tolerance * size, err_msg=what)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _is_float(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _array(x: torch.Tensor) -> jax.Array:
    return jnp.asarray(x.numpy().astype(np.int32) if x.dtype == torch.int64 else x.numpy())

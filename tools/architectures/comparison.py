"""One model against torch: its values, all gradients and, in training mode, its buffers."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Case:
    """A module in evaluation mode, and what it is called with; of ``static`` inputs, the values."""

    module: torch.nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    static: tuple[str, ...] = ()


class NotBuilt(Exception):
    """There is nothing to compare with, for a reason that is not interop's."""


TOLERANCE = {False: 1e-3, True: 1e-4}
"""Of the largest magnitude, in 32 bits and in 64 bits. What is wrong in 32 is tried again in 64."""


def examine(build: Callable[[], Case], *, wide: bool, training: bool) -> dict[str, Any]:
    """The status of a model and what there is to say of it.

    Args:
        build: makes the case.
        wide: in 64 bits on both sides.
        training: in training mode, without dropout, buffers compared too.
    """
    torch.manual_seed(0)
    try:
        case = build()
        perturb(case.module)
        if wide:
            case.module.double()
            case.args, case.kwargs = _mapped(_double, (case.args, case.kwargs))
        case.module.train(training)
        expected = _Expected(case)
    except NotBuilt as error:
        return {"status": "not built", "reason": str(error)}
    except Exception as error:
        return {"status": "not built", "reason": f"{type(error).__name__}: {first_line(error)}"}
    facts = {"parameters": sum(p.numel() for p in case.module.parameters())}
    return facts | _compared(case, expected, wide, training)


def _compared(case: Case, expected: "_Expected", wide: bool, training: bool) -> dict[str, Any]:
    import jax

    import interop
    from interop.errors import ConversionError

    start = time.process_time()
    try:
        net = interop.to_jax(case.module, downcast=not wide)
        inputs = _mapped(lambda x: interop.to_array(x, downcast=not wide), (case.args, case.kwargs))
        for name in case.static:
            inputs[1][name] = interop.Static(case.kwargs[name])
        smooth = {i: x for i, x in enumerate(jax.tree.leaves(inputs)) if _is_smooth(x)}
        structure = jax.tree.structure(inputs)

        def total(params: Any, moving: Any) -> Any:
            leaves = [moving.get(i, x) for i, x in enumerate(jax.tree.leaves(inputs))]
            args, kwargs = jax.tree.unflatten(structure, leaves)
            if training:
                key = jax.random.key(0)
                outputs, buffers = net.train(params, *args, key=key, **kwargs)
            else:
                outputs, buffers = net(params, *args, **kwargs), {}
            found = [x for x in jax.tree.leaves(outputs) if _is_smooth(x)]
            return expected.loss(found), (found, buffers)

        slopes = jax.value_and_grad(total, argnums=(0, 1), has_aux=True, allow_int=True)
        (_, (found, buffers)), (params, moved) = jax.jit(slopes)(net.params, smooth)
    except ConversionError as error:
        return {"status": "refused", "reason": first_line(error)}
    except Exception as error:
        return {"status": "internal", "reason": f"{type(error).__name__}: {first_line(error)}"}
    wrong = expected.differences(found, params, list(moved.values()), buffers, net, TOLERANCE[wide])
    seconds = {"seconds": round(time.process_time() - start, 1)}
    if wrong:
        return seconds | {"status": "wrong", "reason": "; ".join(wrong[:4]), "count": len(wrong)}
    return seconds | {"status": "right"}


def first_line(error: BaseException) -> str:
    """The first line of a message, short."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def perturb(module: torch.nn.Module) -> None:
    """Move what starts at a constant, so that no branch is off and no statistic trivial."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel() and _is_constant(parameter):
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.mul_(0.75 + 0.5 * torch.rand_like(buffer))


def without_dropout(module: torch.nn.Module) -> None:
    """Nothing is dropped in training mode either."""
    for part in module.modules():
        for name, value in list(vars(part).items()):
            drops = "drop" in name or (name == "p" and "Drop" in type(part).__name__)
            if drops and isinstance(value, float):
                setattr(part, name, 0.0)


def _is_constant(x: torch.Tensor) -> bool:
    return bool((x == x.reshape(-1)[0]).all())


def _double(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x


def _mapped(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(function, x) for x in tree)
    if isinstance(tree, dict):
        return {name: _mapped(function, x) for name, x in sorted(tree.items())}
    return tree


def _is_smooth(x: Any) -> bool:
    import jax.numpy as jnp

    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def _tensors(tree: Any) -> list[torch.Tensor]:
    """Floating tensors in the order of JAX's leaves: dicts by their names, sorted."""
    from interop._torch import pytree

    if isinstance(tree, torch.Tensor):
        return [tree] if tree.is_floating_point() or tree.is_complex() else []
    if isinstance(tree, dict):
        return [x for name in sorted(tree) for x in _tensors(tree[name])]
    if isinstance(tree, list | tuple):
        return [x for value in tree for x in _tensors(value)]
    leaves = pytree.tree_leaves(tree)
    return [] if len(leaves) == 1 and leaves[0] is tree else _tensors(leaves)


class _Expected:
    """What torch gives: outputs, gradients of params and inputs, buffers after the call."""

    def __init__(self, case: Case) -> None:
        import numpy as np

        # In copies: what a call leaves in caches is not there when the module is converted.
        one, module = copy.deepcopy(case.module), copy.deepcopy(case.module)
        self.inputs: list[torch.Tensor] = []
        first = self._outputs(case, one)
        self.buffers = {n: x.clone() for n, x in one.named_buffers()}
        self.inputs = []
        outputs = self._outputs(case, module)
        if not outputs:
            raise NotBuilt("its output has no floating-point tensor")
        same = [
            torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(first, outputs, strict=True)
        ]
        if not all(same):
            raise NotBuilt("torch gives other values in a second call")
        self.finite = [x.detach().isfinite().numpy() for x in outputs]
        if any(m.size for m in self.finite) and not any(m.any() for m in self.finite):
            raise NotBuilt("torch gives no finite value")
        self.outputs = [x.detach().numpy() for x in outputs]
        self.weights = [np.cos(np.arange(x.size)).reshape(x.shape) for x in self.outputs]
        loss: Any = 0
        for x, w, mask in zip(outputs, self.weights, self.finite, strict=True):
            real = (x.real + x.imag) if x.is_complex() else x
            kept = torch.where(torch.from_numpy(mask), real, torch.zeros_like(real))
            loss = loss + (kept * torch.from_numpy(w).to(kept.dtype)).sum()
        if loss.requires_grad:
            loss.backward()
        self.slopes = {
            n: None if p.grad is None else p.grad.detach().numpy()
            for n, p in module.named_parameters()
            if p.requires_grad
        }
        self.moved = [None if x.grad is None else x.grad.numpy() for x in self.inputs]

    def _outputs(self, case: Case, module: torch.nn.Module) -> list[torch.Tensor]:
        def fresh(x: torch.Tensor) -> torch.Tensor:
            if not x.is_floating_point():
                return x
            self.inputs.append(x.clone().requires_grad_())
            return self.inputs[-1] * 1

        args, kwargs = _mapped(fresh, (case.args, case.kwargs))
        return _tensors(module(*args, **kwargs))

    def loss(self, found: list[Any]) -> Any:
        """The same weighted sum of JAX's outputs."""
        import jax.numpy as jnp

        if [x.shape for x in found] != [x.shape for x in self.outputs]:
            mine, theirs = ([x.shape for x in xs] for xs in (found, self.outputs))
            raise ValueError(f"outputs have shapes {mine}, torch's {theirs}")
        total: Any = 0
        for x, w, mask in zip(found, self.weights, self.finite, strict=True):
            real = (x.real + x.imag) if jnp.iscomplexobj(x) else x
            total = total + jnp.sum(jnp.where(mask, real, 0) * w.astype(real.dtype))
        return total

    def differences(
        self, found: Any, params: Any, moved: Any, buffers: Any, net: Any, tolerance: float
    ) -> list[str]:
        """A line for each array that is not torch's."""
        pairs = [
            (f"output {i}", x, y) for i, (x, y) in enumerate(zip(found, self.outputs, strict=True))
        ]
        wrong = _far(pairs, tolerance)
        slopes = [
            (f"gradient of {n}", params[net.ties.get(n, n)], y) for n, y in self.slopes.items()
        ]
        slopes += [
            (f"gradient of input {i}", x, y)
            for i, (x, y) in enumerate(zip(moved, self.moved, strict=True))
        ]
        wrong += _far(slopes, tolerance)
        after = [
            (f"buffer {n}", buffers[n], y.numpy()) for n, y in self.buffers.items() if n in buffers
        ]
        for pair in after:
            wrong += _far([pair], tolerance)
        return wrong


def _far(pairs: list[tuple[str, Any, Any]], tolerance: float) -> list[str]:
    """Those further apart than ``tolerance`` of their magnitude, or of 1/1000 of the largest."""
    import numpy as np

    def magnitude(x: Any) -> float:
        kept = np.abs(x[np.isfinite(x)]) if x is not None and x.size else np.zeros(1)
        return float(kept.max()) if kept.size else 0.0

    sizes = [magnitude(y) for _, _, y in pairs]
    floor = 1e-3 * max(sizes, default=0.0)
    wrong = []
    for (name, x, y), size in zip(pairs, sizes, strict=True):
        x = np.asarray(x)
        if x.dtype.kind == "V":  # the gradient of integers
            continue
        y = np.zeros(x.shape, x.dtype) if y is None else y
        finite = np.isfinite(y)
        if x.shape != y.shape or (np.isfinite(x) != finite).any():
            wrong.append(f"{name}: shape or finiteness")
            continue
        gap = np.abs(np.where(finite, x, 0).astype(y.dtype) - np.where(finite, y, 0))
        error = float(gap.max()) / max(size, floor, 1e-30) if gap.size else 0.0
        if error > tolerance:
            wrong.append(f"{name}: {error:.1e}")
    return wrong

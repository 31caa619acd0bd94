"""The samples of torch's operator database, in torch and in JAX, and what is said of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.testing._internal.common_device_type import toleranceOverride
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as tree

from interop.arrays import to_array
from interop.aten import RULES
from interop.errors import ConversionError
from interop.from_torch.lowering import Argument, Result, Types
from interop.from_torch.program import Context, Ref, run, walk
from interop.from_torch.snapshot import Snapshot
from interop.from_torch.structures import flatten, is_array

FORWARD, GRADIENT = 1e-5, 1e-4
"""Allowed errors, absolute and relative to the largest entry."""


def listed() -> dict[str, Any]:
    """The operators that take float32, by name and variant."""
    return {
        f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name: op
        for op in op_db
        if op.supports_dtype(torch.float32, "cpu")
    }


class Sample:
    """One sample: its tensors, and the function of them that is compared."""

    def __init__(self, op: Any, sample: Any) -> None:
        leaves, spec = tree.tree_flatten((sample.input, list(sample.args), dict(sample.kwargs)))
        places = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]
        process = sample.output_process_fn_grad if op.supports_autograd else lambda x: x

        def function(*tensors: Any) -> Any:
            full = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                full[place] = tensor
            first, args, kwargs = tree.tree_unflatten(full, spec)
            return process(op.op(first, *args, **kwargs))

        self.function = function
        self.tensors = [leaves[i] for i in places]
        self.smooth = [x.requires_grad for x in self.tensors]
        described = [
            (x.shape, x.dtype, _layout(x), x.requires_grad) if isinstance(x, torch.Tensor) else x
            for x in leaves
        ]
        self.signature = repr((described, spec, getattr(process, "__code__", process)))

    def fresh(self, wide: bool = False) -> list[Any]:
        """Copies of the tensors with the same strides, float32 as float64 if ``wide``."""
        wider = {torch.float32: torch.float64, torch.complex64: torch.complex128}
        found = []
        for tensor, smooth in zip(self.tensors, self.smooth, strict=True):
            copy = tensor.detach().clone()
            if tensor.is_neg():
                copy = copy.resolve_neg()
            found.append(copy.to(wider.get(copy.dtype, copy.dtype)) if wide else copy)
            found[-1].requires_grad_(smooth)
        return found

    def module(self) -> Any:
        """The function as a module."""

        class Module(torch.nn.Module):
            def forward(module, *tensors: Any) -> Any:
                return self.function(*tensors)

        return Module()

    def oracle(self, wide: bool = False) -> tuple[list[Any], list[Any] | None]:
        """torch's outputs, and its gradients of their weighted sum if it has any."""
        tensors = self.fresh(wide)
        outputs = tree.tree_leaves(self.function(*tensors))
        moving = [x for x in tensors if x.requires_grad]
        smooth = [x for x in outputs if isinstance(x, torch.Tensor) and x.requires_grad]
        if not moving or not smooth:
            return outputs, None
        total = sum((x * torch.from_numpy(weights(x.shape)).to(x.dtype)).sum() for x in smooth)
        try:
            gradients = torch.autograd.grad(
                total.real, moving, allow_unused=True, materialize_grads=True
            )
        except (RuntimeError, NotImplementedError):
            return outputs, None  # torch has none
        return outputs, list(gradients)

    def differences(self, which: int) -> Any:
        """The same gradient by central differences in float64; None if complex or large."""
        tensors = self.fresh(wide=True)
        moved = [x for x in tensors if x.requires_grad][which]
        if moved.is_complex() or moved.numel() > 1000:
            return None
        found = torch.zeros(moved.shape, dtype=torch.float64)
        with torch.no_grad():
            for place in np.ndindex(*moved.shape):
                middle, ends = moved[place].item(), []
                for step in (1e-5, -1e-5):
                    moved[place] = middle + step
                    outputs = tree.tree_leaves(self.function(*tensors))
                    ends.append(
                        sum(
                            (x * torch.from_numpy(weights(x.shape))).sum()
                            for x in outputs
                            if isinstance(x, torch.Tensor) and x.is_floating_point()
                        )
                    )
                moved[place] = middle
                found[place] = (ends[0] - ends[1]) / 2e-5
        return found


def _layout(tensor: Any) -> Any:
    return tensor.stride() if str(tensor.layout) == "torch.strided" else tensor.layout


def weights(shape: Sequence[int]) -> Any:
    """What outputs are summed with."""
    count = int(np.prod(shape))
    return (np.cos(np.arange(count)) + 0.3).reshape(tuple(shape)).astype(np.float32)


class Unsupported(Exception):
    """interop refused, and said why."""


def converted(sample: Sample, cache: dict[str, Any]) -> Any:
    """The exported program of a sample; samples of one signature share it."""
    if sample.signature not in cache:
        snapshot = Snapshot(sample.module())
        leaves, structure = flatten((tuple(sample.fresh()), {}), is_array)
        try:
            found = snapshot.export(False, structure, leaves, RULES, Types(True, False))
        except ConversionError as error:
            found = Unsupported(str(error))
        else:
            missing = {s.operation for s in walk(found.program) if s.operation not in RULES}
            if missing:
                found = Unsupported(f"no rule for {', '.join(sorted(missing))}")
        cache[sample.signature] = found
    found = cache[sample.signature]
    if isinstance(found, Unsupported):
        raise found
    return found


def ours(
    sample: Sample, exported: Any, smooth: list[bool], seed: int = 0
) -> tuple[list[Any], list[Any]]:
    """interop's outputs and gradients, without jit around them."""
    arrays = [to_array(x.detach()) for x in sample.tensors]
    moving = [i for i, s in enumerate(sample.smooth) if s]
    context = Context(RULES, jax.random.key(seed))

    def call(moved: list[Any]) -> list[Any]:
        given = list(arrays)
        for place, value in zip(moving, moved, strict=True):
            given[place] = value
        inputs = [
            given[i.position] if isinstance(i, Argument) else jnp.asarray(i.value)
            for i in exported.inputs
        ]
        found = run(exported.program, inputs, context)
        return [
            value if isinstance(mark, Ref) or isinstance(value, jax.Array) else Constant(value)
            for value, mark, output in zip(
                found, exported.program.outputs, exported.outputs, strict=True
            )
            if isinstance(output, Result)
        ]

    def split(moved: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = call(moved)
        return [x for x, s in zip(outputs, smooth, strict=True) if s], outputs

    try:
        if not any(smooth):
            return call([arrays[i] for i in moving]), []
        values, pull, outputs = jax.vjp(split, [arrays[i] for i in moving], has_aux=True)
        cotangents = [jnp.asarray(weights(x.shape)).astype(x.dtype) for x in values]
        gradients = pull(cotangents)[0]
    except ConversionError as error:
        raise Unsupported(str(error)) from error
    outputs = [x.primal if hasattr(x, "primal") else x for x in outputs]
    return outputs, [jnp.conj(g) for g in gradients]  # torch's convention


class Constant:
    """An output that is no array."""

    def __init__(self, value: Any) -> None:
        self.value = value


def one(op: Any, sample: Sample, cache: dict[str, Any]) -> tuple[str, str]:
    """The verdict on one sample (right, law, unsupported, wrong, skipped) and its reason."""
    if any(x.layout != torch.strided for x in sample.tensors):
        return "unsupported", f"{op.name} of sparse tensors, which interop refuses"
    try:
        expected, theirs = sample.oracle()
    except Exception as error:
        return "skipped", f"torch itself: {error}"
    try:
        exported = converted(sample, cache)
        smooth = [
            theirs is not None and isinstance(x, torch.Tensor) and x.requires_grad for x in expected
        ]
        outputs, gradients = ours(sample, exported, smooth)
        exact = "empty" not in op.name and not is_random(sample, exported, smooth, outputs)
    except Unsupported as error:
        return "unsupported", str(error)
    if len(outputs) != len(expected):
        return "wrong", f"{len(outputs)} outputs for {len(expected)}"
    tolerance = max(FORWARD, override(op))
    for have, want in zip(outputs, expected, strict=True):
        if isinstance(have, Constant):
            if have.value != want:
                return "wrong", f"{have.value} for {want}"
            continue
        if not isinstance(want, torch.Tensor):
            want = torch.tensor(want)
            have = have.astype(str(want.dtype).removeprefix("torch."))
        dtype = str(want.dtype).removeprefix("torch.")
        if tuple(have.shape) != tuple(want.shape) or have.dtype.name != dtype:
            return "wrong", f"{have.dtype}{list(have.shape)} for {dtype}{list(want.shape)}"
    if not exact:
        return "law", ""
    pairs = [
        (h, torch.as_tensor(w))
        for h, w in zip(outputs, expected, strict=True)
        if not isinstance(h, Constant)
    ]
    bad = [i for i, (h, w) in enumerate(pairs) if apart(h, w) > tolerance]
    slopes = list(zip(gradients, theirs or [], strict=True)) if gradients else []
    worse = [i for i, (h, w) in enumerate(slopes) if apart(h, w) > max(GRADIENT, override(op))]
    if not bad and not worse:
        return "right", ""
    # Where float32 itself is lost, ours only has to be as near to the truth as torch's.
    try:
        truth, steep = sample.oracle(wide=True)
        true = [
            torch.as_tensor(w) for w in truth if isinstance(w, torch.Tensor | bool | int | float)
        ]
    except Exception:
        true, steep = [w for _, w in pairs], theirs
    for i in bad:
        if not forgiven(*pairs[i], true[i], tolerance):
            return "wrong", f"value {i} off by {apart(*pairs[i]):.1g}"
    for i in worse:
        if steep is None or not forgiven(*slopes[i], steep[i], GRADIENT):
            found = sample.differences(i)
            if found is not None and apart(slopes[i][0], found) <= GRADIENT < apart(
                plain(steep[i]), found
            ):
                return "right", f"torch's own gradient {i} is not its derivative"
            return "wrong", f"gradient {i} off by {apart(*slopes[i]):.1g}"
    return "right", ""


def is_random(sample: Sample, exported: Any, smooth: list[bool], outputs: list[Any]) -> bool:
    """Whether another key gives other numbers."""
    if not any("key" in RULES[s.operation].asks for s in walk(exported.program)):
        return False
    for seed in (1, 2, 3):
        others = ours(sample, exported, smooth, seed)[0]
        for one, other in zip(outputs, others, strict=True):
            if not isinstance(one, Constant) and not np.array_equal(one, other, equal_nan=True):
                return True
    return False


def forgiven(have: Any, want: Any, truth: Any, tolerance: float) -> bool:
    """Whether ours is about as near to the truth as torch's."""
    return apart(have, truth) <= max(tolerance, 4 * apart(plain(want), truth)) and apart(
        plain(want), truth
    ) < float("inf")


def plain(tensor: Any) -> Any:
    """A tensor as a dense numpy array that numpy can compute with."""
    tensor = tensor.detach()
    if str(tensor.layout) != "torch.strided":
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg().clone()  # also of torch's lazy zeros
    return (
        tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    ).numpy()


def apart(have: Any, want: Any) -> float:
    """The largest difference over 1 + the largest finite entry; NaN and infinities must match."""
    one, other = np.asarray(have), plain(want)
    kind = np.complex128 if np.iscomplexobj(one) or np.iscomplexobj(other) else np.float64
    one, other = one.astype(kind), other.astype(kind)
    if one.shape != other.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        gap = np.where(same, 0, np.abs(one - other))
        finite = np.abs(other[np.isfinite(other)])
        gap = gap / (1 + (finite.max() if finite.size else 0))
    return float(np.nan_to_num(gap, nan=np.inf, posinf=np.inf).max(initial=0))


def override(op: Any) -> float:
    """torch's own tolerance for float32 where its tests loosen it, at most 1e-3."""
    found = [0.0]
    for decorator in op.decorators:
        parts = getattr(decorator, "decorators", [decorator])
        if getattr(decorator, "cls_name", None) not in (None, "TestCommon", "TestUnaryUfuncs"):
            continue
        for part in parts:
            if isinstance(part, toleranceOverride) and torch.float32 in part.d:
                found.append(max(part.d[torch.float32]))
    return min(1e-3, max(found))


def examine(op: Any, limit: int) -> dict[str, Any]:
    """All samples of one operator."""
    torch.manual_seed(0)
    samples = op.sample_inputs("cpu", torch.float32, requires_grad=op.supports_autograd)
    counts = dict.fromkeys(("right", "law", "unsupported", "wrong", "skipped"), 0)
    reasons: dict[str, dict[str, int]] = {
        k: {} for k in ("unsupported", "wrong", "skipped", "right")
    }
    cache: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        if limit and number >= limit:
            break
        try:
            verdict, reason = one(op, Sample(op, sample), cache)
        except Exception as error:
            verdict, reason = "unsupported", f"raised {type(error).__name__}: {error}"
        counts[verdict] += 1
        if reason:
            reason = " ".join(reason.split())[:300]
            reasons[verdict][reason] = reasons[verdict].get(reason, 0) + 1
    return {**counts, "reasons": reasons}

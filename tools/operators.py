"""Runs torch's operator database through interop and writes docs/operators.md.

    python tools/operators.py [--only NAMES] [--jobs 2] [--limit SAMPLES] [--output docs/operators.md]

Every sample of every operator that takes float32 becomes a module of its tensors, all else in it
constant. Its outputs, their shapes and dtypes and the gradients of all inputs are compared with
torch's. An operator counts as right when all of its samples are. What is known is kept in a JSON
file beside the output, or in ``--results``, and not run again; ``--only`` always runs.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent.parent))

FORWARD, GRADIENT = 1e-5, 1e-4
"""Allowed errors, absolute and relative to the largest entry."""


def listed() -> dict[str, Any]:
    """The operators that take float32, by name and variant."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    return {
        f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name: op
        for op in op_db
        if op.supports_dtype(torch.float32, "cpu")
    }


class Sample:
    """One sample: its tensors, and the function of them that is compared."""

    def __init__(self, op: Any, sample: Any) -> None:
        import torch
        from torch.utils import _pytree as tree

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
        import torch

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
        import torch

        class Module(torch.nn.Module):
            def forward(module, *tensors: Any) -> Any:
                return self.function(*tensors)

        return Module()

    def oracle(self, wide: bool = False) -> tuple[list[Any], list[Any] | None]:
        """torch's outputs, and its gradients of their weighted sum if it has any."""
        import torch
        from torch.utils import _pytree as tree

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


def _layout(tensor: Any) -> Any:
    return tensor.stride() if str(tensor.layout) == "torch.strided" else tensor.layout


def weights(shape: Sequence[int]) -> Any:
    import numpy as np

    count = int(np.prod(shape))
    return (np.cos(np.arange(count)) + 0.3).reshape(tuple(shape)).astype(np.float32)


class Unsupported(Exception):
    """interop refused, and said why."""


def converted(sample: Sample, cache: dict[str, Any]) -> Any:
    """The exported program of a sample; samples of one signature share it."""
    from interop.aten import RULES
    from interop.errors import ConversionError
    from interop.export import export
    from interop.lowering import Types
    from interop.program import walk
    from interop.twins import twins

    if sample.signature not in cache:
        module = sample.module()
        try:
            with twins(module):
                found = export(module, tuple(sample.fresh()), {}, RULES, Types(True, False))
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


def ours(sample: Sample, exported: Any, smooth: list[bool]) -> tuple[list[Any], list[Any]]:
    """interop's outputs and gradients, without jit around them."""
    import jax
    import jax.numpy as jnp

    from interop.arrays import to_array
    from interop.aten import RULES
    from interop.errors import ConversionError
    from interop.program import Context, Ref, run

    arrays = [to_array(x.detach()) for x in sample.tensors]
    moving = [i for i, s in enumerate(sample.smooth) if s]
    context = Context(RULES, jax.random.key(0))

    def call(moved: list[Any]) -> list[Any]:
        given = list(arrays)
        for place, value in zip(moving, moved, strict=True):
            given[place] = value
        inputs = [
            given[what] if kind == "input" else jnp.asarray(what) for kind, what in exported.inputs
        ]
        found = run(exported.program, inputs, context)
        return [
            value if isinstance(mark, Ref) or isinstance(value, jax.Array) else Constant(value)
            for value, mark, (kind, _) in zip(
                found, exported.program.outputs, exported.outputs, strict=True
            )
            if kind == "output"
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
    import torch

    from interop.aten import RULES
    from interop.program import walk

    try:
        expected, theirs = sample.oracle()
    except Exception as error:
        return "skipped", f"torch itself: {error}"
    try:
        exported = converted(sample, cache)
        smooth = [
            theirs is not None and isinstance(x, torch.Tensor) and x.requires_grad for x in expected
        ]
        random = any("key" in RULES[s.operation].asks for s in walk(exported.program))
        exact = not random and "empty" not in op.name
        outputs, gradients = ours(sample, exported, smooth)
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
            return "wrong", f"gradient {i} off by {apart(*slopes[i]):.1g}"
    return "right", ""


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
    tensor = tensor.resolve_conj().resolve_neg()
    return (
        tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    ).numpy()


def apart(have: Any, want: Any) -> float:
    """The largest difference over one plus the largest finite entry; NaN and infinities must match."""
    import numpy as np

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
    import torch
    from torch.testing._internal.common_device_type import toleranceOverride

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
    import torch

    torch.manual_seed(0)
    samples = op.sample_inputs("cpu", torch.float32, requires_grad=op.supports_autograd)
    counts = dict.fromkeys(("right", "law", "unsupported", "wrong", "skipped"), 0)
    reasons: dict[str, dict[str, int]] = {"unsupported": {}, "wrong": {}, "skipped": {}}
    cache: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        if limit and number >= limit:
            break
        try:
            verdict, reason = one(op, Sample(op, sample), cache)
        except Exception as error:
            verdict, reason = "unsupported", f"raised {type(error).__name__}: {error}"
        counts[verdict] += 1
        if verdict in reasons:
            reason = " ".join(reason.split())[:300]
            reasons[verdict][reason] = reasons[verdict].get(reason, 0) + 1
    return {**counts, "reasons": reasons}


def work() -> None:
    """Reads names from standard input, writes verdicts as JSON lines."""
    import jax
    import torch

    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever torch prints
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    jax.config.update("jax_enable_x64", True)
    ops = listed()
    for line in sys.stdin:
        name, limit = line.split()
        start = time.perf_counter()
        try:
            found = examine(ops[name], int(limit))
        except Exception as error:
            found = failure(f"its samples raise {type(error).__name__}: {error}"[:300])
        found["seconds"] = round(time.perf_counter() - start, 1)
        output.write(json.dumps(found) + "\n")
        output.flush()


def failure(reason: str) -> dict[str, Any]:
    counts = {"right": 0, "law": 0, "unsupported": 1, "wrong": 0, "skipped": 0}
    return {**counts, "reasons": {"unsupported": {reason: 1}, "wrong": {}, "skipped": {}}}


class Worker:
    """A process that examines operators, replaced when one takes too long or ends it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: Any = None

    def __call__(self, name: str, limit: int) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        self._process.stdin.write(f"{name} {limit}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self.close()
        return failure("the process ended" if ready else f"took over {self._seconds:.0f} s")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def verdict(found: dict[str, Any]) -> str:
    if found["wrong"]:
        return "WRONG"
    if found["unsupported"]:
        return "in part" if found["right"] + found["law"] else "unsupported"
    if found["law"]:
        return "right (law)"
    return "right" if found["right"] else "skipped"


def table(results: dict[str, Any]) -> str:
    """docs/operators.md."""
    verdicts = {name: verdict(found) for name, found in results.items()}
    tally = {v: list(verdicts.values()).count(v) for v in VERDICTS}
    judged = len(results) - tally["skipped"]
    right = tally["right"] + tally["right (law)"]
    sums = {
        k: sum(f[k] for f in results.values()) for k in ("right", "law", "unsupported", "wrong")
    }
    limits = {f["limit"] for f in results.values()}
    samples = f"the first {max(limits)} samples" if limits != {0} else "all samples"
    lines = [
        "# torch's operators in JAX",
        "",
        "torch's own database of operators (`op_db`, those that take float32), run through `interop` "
        "by `python tools/operators.py`: each sample as a module, exported, and interpreted in JAX. "
        "Outputs must have torch's shape and dtype, and values within "
        f"{FORWARD:g}, gradients within {GRADIENT:g} of torch's, or be as near to the float64 truth "
        "as torch's float32. *Law*: random numbers, compared by shape and dtype. *Unsupported*: an "
        "error that names the operation.",
        "",
        f"torch {version('torch')}, jax {version('jax')}; {samples} of each operator.",
        "",
        f"**{right} of {judged} operators are right in every sample "
        f"({100 * right / max(1, judged):.1f} %)**; {tally['in part']} in part, "
        f"{tally['unsupported']} unsupported, {tally['WRONG']} wrong.",
        f"Samples: {sums['right'] + sums['law']:,} right, {sums['unsupported']:,} unsupported, "
        f"{sums['wrong']:,} wrong.",
        "",
        "| operator | samples | right | law | unsupported | wrong | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(results.items()):
        counts = [found[k] for k in ("right", "law", "unsupported", "wrong")]
        why = "; ".join([*found["reasons"]["wrong"], *found["reasons"]["unsupported"]])
        why = why.replace(str(Path(__file__).parent) + "/", "").replace("|", "/")[:160]
        cells = [name, sum(counts), *counts[:3], f"**{counts[3]}**" if counts[3] else 0, why]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


VERDICTS = ("right", "right (law)", "in part", "unsupported", "WRONG", "skipped")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="names, with commas; * as in file names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=0, help="samples of each operator; 0: all")
    parser.add_argument("--seconds", type=float, default=300, help="time limit of one operator")
    parser.add_argument("--output", type=Path, help="the table")
    parser.add_argument("--results", type=Path, help="what is known, JSON")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    path = options.results or (options.output and options.output.with_suffix(".json"))
    results = json.loads(path.read_text()) if path and path.exists() else {}
    names = list(listed())
    if options.only:
        from fnmatch import fnmatchcase

        patterns = options.only.split(",")
        todo = [n for n in names if any(fnmatchcase(n, p) for p in patterns)]
    else:
        todo = [n for n in names if n not in results or results[n]["limit"] != options.limit]
    lock = threading.Lock()
    shown = {}

    def serve() -> None:
        worker = Worker(options.seconds)
        while True:
            with lock:
                if not todo:
                    break
                name = todo.pop(0)
            found = {**worker(name, options.limit), "limit": options.limit}
            with lock:
                results[name] = shown[name] = found
                if path:
                    path.write_text(json.dumps(results, indent=0, sort_keys=True))
                print(
                    f"{verdict(found):12} {name} {found['seconds'] if 'seconds' in found else ''}"
                )
                for kind in ("wrong", "unsupported"):
                    for reason, count in found["reasons"][kind].items():
                        print(f"    {kind} {count}: {reason[:200]}", flush=True)
        worker.close()

    threads = [threading.Thread(target=serve) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [verdict(found) for found in shown.values()]
    print({v: counts.count(v) for v in VERDICTS if v in counts})
    if options.output:
        options.output.write_text(table(results))


if __name__ == "__main__":
    main()

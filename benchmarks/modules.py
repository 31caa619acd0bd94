"""A training step of converted torch modules, against torch eager and torch.compile.

One process runs every side in turn; a step is forward, cross entropy, backward and an SGD update.
The table gives medians and ratios of ours to theirs: below one, ours is faster. Conversion and
compilation are timed apart. Memory is what a fresh process grows by in two steps, at its peak (on
Linux). The rows of whole networks need torchvision. Usage:

    python benchmarks/modules.py [--device cpu|gpu] [--repeats 15] [--output FILE] [--rows MLP,LSTM]
"""

import argparse
import contextlib
import gc
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from math import nan
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import interop

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.interop.models import Recurrent, Transformer, mlp, resnet

# name: (module, batch, shape of one input)
CASES: dict[str, tuple[Callable[[], torch.nn.Module], int, tuple[int, ...]]] = {
    "MLP 256-512-512-10": (lambda: mlp(256, 512), 128, (256,)),
    "ResNet of 16 and 32 channels": (lambda: resnet(3, 16), 32, (3, 32, 32)),
    "Two convolutions 16-16-16, nothing else": (lambda: convolutions(16), 32, (16, 32, 32)),
    "LSTM of 2 layers of 128": (lambda: Recurrent(32, 128), 32, (64, 32)),
    "Transformer of 2 layers of 128": (lambda: Transformer(32, 128), 16, (64, 32)),
}
NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], int, tuple[int, ...]]] = {}
with contextlib.suppress(ImportError):
    from torchvision import models

    NETWORKS = {
        "MobileNetV3-Small": (lambda: models.mobilenet_v3_small(num_classes=10), 8, (3, 128, 128)),
        "EfficientNet-B0": (lambda: models.efficientnet_b0(num_classes=10), 8, (3, 128, 128)),
        "ConvNeXt-T": (lambda: models.convnext_tiny(num_classes=10), 4, (3, 128, 128)),
        "ResNeXt-50": (lambda: models.resnext50_32x4d(num_classes=10), 4, (3, 128, 128)),
    }
CASES |= NETWORKS
PAUSE = 0.05
WHY = [
    "Where torch is faster on CPU: XLA's dense convolutions (Eigen's) take longer than oneDNN's, "
    "and inside a loop over time XLA runs elementwise operations on one thread, which is what the "
    "LSTM pays. For 3x3 kernels sums of shifted products, im2col and Winograd's form took two to "
    "eight times as long as channels last, which is what runs; for the LSTM, loops unrolled and "
    "one tanh for all gates gained nothing, and took far longer to compile.",
    "",
]
RATE = 0.01


def convolutions(channels: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, channels, 3, padding=1),
        torch.nn.Conv2d(channels, channels, 3, padding=1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(channels, 10),
    )


def torch_side(
    module: torch.nn.Module, x: np.ndarray, y: np.ndarray, device: str, compiled: bool
) -> Callable[[], None]:
    module = module.to(device).train()
    forward = torch.compile(module) if compiled else module
    sgd = torch.optim.SGD(module.parameters(), lr=RATE)
    inputs, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def step() -> None:
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(forward(inputs), labels).backward()
        sgd.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def our_side(
    module: torch.nn.Module, x: np.ndarray, y: np.ndarray, device: Any
) -> tuple[Callable[[], None], float, float]:
    """The step, and seconds to convert and to compile it."""
    started = time.perf_counter()
    net = interop.to_jax(module.train())
    inputs, labels = jax.device_put((x, y.astype(np.int32)), device)
    params, buffers = jax.device_put((net.params, net.buffers), device)
    jax.eval_shape(net.train, params, inputs, key=jax.random.key(0))
    converted = time.perf_counter()

    def loss(params: Any, buffers: Any) -> Any:
        logits, buffers = net.train(params, inputs, buffers=buffers, key=jax.random.key(0))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), buffers

    def update(params: Any, buffers: Any) -> Any:
        slopes, buffers = jax.grad(loss, has_aux=True)(params, buffers)
        return jax.tree.map(lambda p, g: p - RATE * g, params, slopes), buffers

    step = jax.jit(update, donate_argnums=(0, 1)).lower(params, buffers).compile()
    state = [step(*jax.tree.map(jnp.array, (params, buffers)))]
    compiled = time.perf_counter()

    def run() -> None:
        state[0] = jax.block_until_ready(step(*state[0]))

    return run, converted - started, compiled - converted


def in_turn(sides: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            time.sleep(PAUSE)
            side()
            started = time.perf_counter()
            side()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(t) for name, t in times.items()}


def peak(name: str, side: str) -> float:
    """Megabytes that a fresh process grows by in its first steps, at its highest."""
    if not Path("/proc/self/statm").exists():
        return nan
    command = [sys.executable, __file__, "--peak", side, "--rows", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def growth(step: Callable[[], None]) -> float:
    """Megabytes that this process grows by in two steps, at its highest."""
    sizes, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            sizes.append(_resident())
            time.sleep(5e-4)

    gc.collect()
    before = _resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    step()
    step()
    done.set()
    watcher.join()
    return (max(sizes) - before) / 2**20


def _resident() -> int:
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    _, batch, shape = CASES[name]
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *shape)).astype(np.float32), rng.integers(0, 10, batch)


def row(name: str, repeats: int, device: str, accelerator: Any) -> str:
    make, batch, _ = CASES[name]
    x, y = data(name)
    torch.manual_seed(0)
    module = make()
    ours, converting, compiling = our_side(module, x, y, accelerator)
    sides = {"ours": ours, "eager": torch_side(make(), x, y, device, compiled=False)}
    torch_compiling = float("nan")
    if name not in NETWORKS:  # those take minutes to compile
        with contextlib.suppress(Exception):
            step = torch_side(make(), x, y, device, compiled=True)
            started = time.perf_counter()
            step()
            torch_compiling = time.perf_counter() - started
            sides["compile"] = step
    times = in_turn(sides, repeats)
    memory = {side: peak(name, side) for side in ("ours", "eager")} if device == "cpu" else {}
    eager, compiled = times["eager"], times.get("compile", float("nan"))
    ratio = times["ours"] / eager
    shown = f"{ratio:.2f}" if ratio <= 1 else f"**{ratio:.2f}**"
    return (
        f"| {name}, batch {batch} | {times['ours']:.2f} | {eager:.2f} | {compiled:.2f} | {shown} | "
        f"{times['ours'] / compiled:.2f} | {converting:.2f} | {compiling:.2f} | "
        f"{torch_compiling:.1f} | {memory.get('ours', nan):.0f} | {memory.get('eager', nan):.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rows", default="")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peak", choices=["ours", "eager"], help="only the memory of one row")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peak:
        x, y = data(options.rows)
        module = CASES[options.rows][0]()
        if options.peak == "ours":
            step = our_side(module, x, y, jax.devices("cpu")[0])[0]
        else:
            step = torch_side(module, x, y, "cpu", compiled=False)
        print(growth(step))
        return
    device, said = options.device, options.device
    if device == "gpu" and not (jax.default_backend() == "gpu" and torch.cuda.is_available()):
        device, said = "cpu", "cpu, as no GPU was at hand"
    accelerator = jax.devices(device)[0]
    rows = [
        row(name, options.repeats, "cuda" if device == "gpu" else "cpu", accelerator)
        for name in CASES
        if not options.rows or any(part in name for part in options.rows.split(","))
    ]
    kind = accelerator.device_kind if device == "gpu" else f"{os.cpu_count()} cores"
    lines = [
        f"# A training step of converted modules, on {said}",
        "",
        f"Forward, cross entropy, backward and SGD update; medians of {options.repeats}, all sides "
        "in turn in one process, each after a pause and one untimed step. Converting is "
        "`to_jax` with `torch.export`; compiling is XLA's. Ratios below one mean that ours is "
        "faster.",
        "",
        "| module | ours, ms | torch eager, ms | torch.compile, ms | ours / eager | "
        "ours / torch.compile | converting, s | compiling, s | torch.compile's first step, s | "
        "ours, peak MB | eager, peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        *(WHY if device == "cpu" else []),
        f"jax {jax.__version__}, torch {torch.__version__}, optax {version('optax')}; Python "
        f"{platform.python_version()}; {platform.machine()}, {kind}; "
        f"torch on {torch.get_num_threads()} threads",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()

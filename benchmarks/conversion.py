"""How long it takes to convert a torch module and to run it for the first time.

For each model: `interop.to_jax` and the first jitted call, beside what cannot be avoided
(`torch.export` alone, and XLA's compilation of the finished program) and beside the first call of
`torch.compile`. Everything happens once in a fresh process for each side, as it does for a user;
the table has medians of several processes. Needs torchvision and transformers. Usage:

    python benchmarks/conversion.py [--repeats 3] [--output FILE] [--rows ResNet,BERT]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def resnet() -> tuple[Any, Any]:
    import torch
    from torchvision.models import resnet50

    return resnet50(weights=None), torch.randn(2, 3, 224, 224)


def vit() -> tuple[Any, Any]:
    import torch
    from torchvision.models import vit_b_16

    return vit_b_16(weights=None), torch.randn(2, 3, 224, 224)


def bert() -> tuple[Any, Any]:
    import torch
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()), torch.randint(0, 30_000, (2, 128))


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "ResNet-50": resnet,
    "ViT-B/16": vit,
    "BERT of 12 layers": bert,
}


def ours(module: Any, x: Any) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    import interop

    x = jnp.asarray(x.numpy().astype("int32") if not x.is_floating_point() else x.numpy())
    jax.block_until_ready(jnp.ones(3) + 1)  # the backend has started
    started = time.perf_counter()
    net = interop.to_jax(module)
    traced = jax.jit(lambda params, x: jax.tree.leaves(net(params, x))).trace(net.params, x)
    lowered = traced.lower()
    converted = time.perf_counter()
    compiled = lowered.compile()
    finished = time.perf_counter()
    jax.block_until_ready(compiled(net.params, x))
    return {
        "all": time.perf_counter() - started,
        "converting": converted - started,
        "compiling": finished - converted,
    }


def export(module: Any, x: Any) -> dict[str, float]:
    import torch

    started = time.perf_counter()
    torch.export.export(module, (x,))
    return {"all": time.perf_counter() - started}


def compiled(module: Any, x: Any) -> dict[str, float]:
    import torch

    started = time.perf_counter()
    with torch.no_grad():
        torch.compile(module)(x)
    return {"all": time.perf_counter() - started}


SIDES = {"ours": ours, "export": export, "compile": compiled}


def one(model: str, side: str) -> dict[str, float]:
    """In this process."""
    import torch

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    module, x = MODELS[model]()
    return SIDES[side](module.eval(), x)


def measured(model: str, side: str, repeats: int) -> dict[str, float]:
    """Medians of several processes."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--one", model, "--side", side]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            return {"all": float("nan")}
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(f[name] for f in found) for name in found[0]}


def row(model: str, repeats: int) -> str:
    mine, alone, theirs = (measured(model, side, repeats) for side in SIDES)
    bound = alone["all"] + mine["compiling"]
    return (
        f"| {model} | {mine['all']:.1f} | {mine['converting']:.1f} | {mine['compiling']:.1f} | "
        f"{alone['all']:.1f} | {mine['all'] / bound:.2f} | {theirs['all']:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", default="")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=MODELS)
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.side)))
        return
    rows = [
        row(model, options.repeats)
        for model in MODELS
        if not options.rows or any(part in model for part in options.rows.split(","))
    ]
    import jax
    import torch

    lines = [
        "# Converting a module and running it for the first time, on CPU",
        "",
        f"Seconds, medians of {options.repeats} processes. *ours* is `to_jax` and the first jitted "
        "call, of which *converting* is all until XLA has the program, and *compiling* is XLA's. "
        "The ratio is to `torch.export` alone and XLA's compilation together.",
        "",
        "| model | ours | converting | compiling | torch.export alone | ratio | "
        "torch.compile's first call |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"jax {jax.__version__}, torch {torch.__version__}; Python {platform.python_version()}; "
        f"{platform.machine()}, {os.cpu_count()} cores",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()

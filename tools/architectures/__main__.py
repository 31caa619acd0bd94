"""Runs the models of torch's libraries through interop and writes docs/architectures.md.

    python tools/architectures timm torchvision transformers diffusers
        [--only TEXT ...] [--share I/N] [--training] [--seconds 200] [--gigabytes 6]
        [--results tools/architectures/results.jsonl] [--again STATUS ...]
        [--output docs/architectures.md]

Each model, shrunk where its library lets it be, with random weights, runs in a process of its own.
Its outputs and the gradients of all params and inputs are compared with torch's, in 32 bits, and
again in 64 bits where those differ. What is found goes to ``--results``, a line of JSON each; what
is there is not run again unless ``--again`` names its status. ``--output`` writes the table of all
that is there.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[2]))

from table import written

LIBRARIES = ("timm", "torchvision", "transformers", "diffusers")


def models_of(library: str) -> dict[str, Any]:
    """What builds each model, by name."""
    if library == "transformers":
        from language import models
    elif library == "diffusers":
        from diffusion import models
    elif library == "timm":
        from vision import timm_models as models
    else:
        from vision import torchvision_models as models
    return models()


def child(connection: Any, build: Any, wide: bool, training: bool) -> None:
    """In a process of its own: one model."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)  # whatever the libraries print
    warnings.simplefilter("ignore")
    import jax
    import torch
    from comparison import examine

    torch.set_num_threads(1)
    jax.config.update("jax_enable_x64", wide)
    connection.send(examine(build, wide=wide, training=training))


def verdict(build: Any, wide: bool, training: bool, seconds: float, gigabytes: float) -> Any:
    """Of one model, within its time and memory."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, build, wide, training))
    process.start()
    sender.close()
    try:
        while True:
            if receiver.poll(0.5):
                return receiver.recv()
            if processor_time(process.pid) > seconds:
                return {"status": "out of time", "reason": f"more than {seconds:.0f} s"}
            if memory(process.pid) > gigabytes:
                return {"status": "out of memory", "reason": f"more than {gigabytes:g} GB"}
    except EOFError:
        process.join(5)
        return {"status": "internal", "reason": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def processor_time(pid: Any) -> float:
    """Seconds of work, whatever else the machine does meanwhile."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: Any) -> float:
    """Gigabytes in use."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def share_of(text: str) -> tuple[int, int]:
    """``"2/5"`` as numbers."""
    part, of = map(int, text.split("/"))
    return part, of


def main() -> None:
    """Parse arguments, run what is not known, write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("libraries", nargs="*", help=", ".join(LIBRARIES))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--share", type=share_of, default=(0, 1))
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.jsonl"))
    parser.add_argument("--again", nargs="*", default=[])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    known = read(options.results)
    for library in options.libraries:
        part, of = options.share
        for number, (name, build) in enumerate(sorted(models_of(library).items())):
            if options.only and not any(text in name for text in options.only):
                continue
            key = (library, name, options.training)
            old = known.get(key)
            if number % of != part or (old and old["status"] not in options.again):
                continue
            limits = (options.training, options.seconds, options.gigabytes)
            found = verdict(build, False, *limits)
            if found["status"] == "wrong":
                narrow = found["reason"]
                found = verdict(build, True, *limits) | {"in 32 bits": narrow}
                if found["status"] not in ("right", "wrong"):
                    found |= {"status": "undecided", "reason": f"in 32 bits: {narrow}"}
            line = {"library": library, "name": name, "training": options.training, **found}
            with options.results.open("a") as file:
                file.write(re.sub(r"/[^\s\":(]*/site-packages/", "", json.dumps(line)) + "\n")
            print(
                f"{library} {name}: {found['status']} {found.get('reason', '')}"[:230], flush=True
            )
    if options.output:
        options.output.write_text(written(read(options.results).values()))


def read(path: Path) -> dict[tuple[str, str, bool], dict[str, Any]]:
    """The last line of each model."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = map(json.loads, lines)
    return {(f["library"], f["name"], f["training"]): f for f in found}


if __name__ == "__main__":
    import jax  # noqa: F401
    import torch  # noqa: F401

    main()

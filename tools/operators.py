"""Runs torch's operator database through interop and writes docs/operators.md.

    python tools/operators.py [--only NAMES] [--jobs 2] [--limit N] [--output docs/operators.md]

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
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent.parent))


def work() -> None:
    """Reads names from standard input, writes verdicts as JSON lines."""
    import jax
    import torch
    from operator_samples import examine, listed

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
        jax.clear_caches()


def failure(reason: str) -> dict[str, Any]:
    """What is said of an operator whose samples could not be run."""
    counts = {"right": 0, "law": 0, "unsupported": 1, "wrong": 0, "skipped": 0}
    return {**counts, "reasons": {"unsupported": {reason: 1}, "wrong": {}}}


class Worker:
    """A process that examines operators, replaced when one takes too long or ends it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: Any = None
        self._served = 0

    def __call__(self, name: str, limit: int) -> dict[str, Any]:
        """What is found of one operator."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        self._served += 1
        self._process.stdin.write(f"{name} {limit}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        line = self._process.stdout.readline() if ready else ""
        if line:
            if self._served % 60 == 0:  # compiled code is never given back
                self.close()
            return json.loads(line)
        self.close()
        return failure("the process ended" if ready else f"took over {self._seconds:.0f} s")

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def verdict(found: dict[str, Any]) -> str:
    """One of ``VERDICTS``."""
    if found["wrong"]:
        return "WRONG"
    if found["unsupported"]:
        return "in part" if found["right"] + found["law"] else "unsupported"
    if found["law"]:
        return "right (law)"
    return "right" if found["right"] else "skipped"


def table(results: dict[str, Any]) -> str:
    """The text of docs/operators.md."""
    from operator_samples import FORWARD, GRADIENT

    verdicts = {name: verdict(found) for name, found in results.items()}
    tally = {v: list(verdicts.values()).count(v) for v in VERDICTS}
    judged = len(results) - tally["skipped"]
    right = tally["right"] + tally["right (law)"]
    kinds = ("right", "law", "unsupported", "wrong")
    sums = {k: sum(f[k] for f in results.values()) for k in kinds}
    limits = {f["limit"] for f in results.values()}
    samples = f"the first {max(limits)} samples" if limits != {0} else "all samples"
    lines = [
        "# torch's operators in JAX",
        "",
        "torch's own database of operators (`op_db`, those that take float32), through `interop`",
        "by `python tools/operators.py`: each sample as a module, exported, interpreted in JAX.",
        f"Outputs must have torch's shapes and dtypes, values within {FORWARD:g} and gradients",
        f"within {GRADIENT:g} of torch's (more only where torch's own tests allow more), or be as",
        "near to the truth in float64 as torch's float32. *Law*: random numbers and empty memory,",
        "compared by shape and dtype. *Unsupported*: an error that names the operation.",
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
        counts = [found[k] for k in kinds]
        reasons = found["reasons"]
        why = "; ".join(r for k in ("wrong", "unsupported", "right") for r in reasons.get(k, {}))
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
    from operator_samples import listed

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
                print(f"{verdict(found):12} {name} {found.get('seconds', '')}", flush=True)
                for kind in ("wrong", "unsupported", "right"):
                    for reason, count in found["reasons"].get(kind, {}).items():
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

"""The table of what was found, in Markdown."""

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ORDER = (
    "right",
    "refused",
    "wrong",
    "undecided",
    "internal",
    "out of time",
    "out of memory",
    "not built",
)
_PACKAGES = ("torch", "jax", "timm", "torchvision", "transformers", "diffusers")


def written(found: Iterable[dict[str, Any]]) -> str:
    """Counts by library, then a row for each model that built and is not right."""
    found = sorted(found, key=lambda f: (f["library"], f["training"], f["name"]))
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in found:
        mode = ", training mode" if line["training"] else ""
        groups.setdefault(line["library"] + mode, []).append(line)
    lines = [
        "# Architectures",
        "",
        "Written by `python tools/architectures`: models with small random configurations, each",
        "jitted in JAX and compared with torch in values and in gradients of params and inputs;",
        "in training mode in the buffers after the call too. Differences in 32 bits are decided in",
        "64. *Not built* are those to which the tool found no small configuration or no inputs:",
        "nothing is known of them. Models that are not in the counts were not run. Detectors",
        "choose boxes by their values, so a compiled function has their backbones and heads alone.",
        "Sizes of images and masks of which Python takes lengths are passed as `interop.Static`.",
        "",
        ", ".join(filter(None, map(_version, _PACKAGES))) + ".",
        "",
        "| library | " + " | ".join(_ORDER) + " | right of those built |",
        "|---" * (len(_ORDER) + 2) + "|",
    ]
    for name, group in groups.items():
        counts = Counter(line["status"] for line in group)
        built = len(group) - counts["not built"]
        share = f"{counts['right'] / built:.0%}" if built else ""
        lines.append(f"| {name} | " + " | ".join(str(counts[s]) for s in _ORDER) + f" | {share} |")
    for name, group in groups.items():
        rest = [line for line in group if line["status"] not in ("right", "not built")]
        if rest:
            lines += ["", f"## {name}", "", "| model | | |", "|---|---|---|"]
            lines += [f"| {x['name']} | {x['status']} | {_short(x['reason'])} |" for x in rest]
    return "\n".join(lines) + "\n"


def _short(reason: str) -> str:
    """Without where packages are installed."""
    words = [
        w.rpartition("site-packages/")[2] if "site-packages/" in w else w for w in reason.split()
    ]
    root = f"{Path(__file__).parents[2]}/"
    return " ".join(words).replace(root, "").replace("|", "\\|")[:220]


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""

"""What importing funcvi does, and what its modules import."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_funcvi_loads_no_torch_and_no_interop_and_starts_no_backend():
    done = run(
        "import sys, funcvi\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'interop', 'matplotlib', 'arviz', 'scipy.stats'}, loaded\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_interop_loads_no_torch_until_it_is_needed():
    done = run(
        "import sys, interop\n"
        "assert not {'torch', 'safetensors', 'funcvi'} & set(sys.modules)\n"
        "interop.to_jax\n"
        "assert 'torch' in sys.modules and 'transformers' not in sys.modules\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def modules(package):
    """Dotted name to parsed source, for each file of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (ast.parse(path.read_text()), parts[-1] == "__init__")
    return found


def imported(name, tree, is_package):
    """Every name that a module imports, those inside functions too, as dotted names."""
    base = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*prefix, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports(package):
    return {
        name: set(imported(name, tree, is_package))
        for name, (tree, is_package) in modules(package).items()
    }


@pytest.mark.parametrize(
    ("package", "foreign"), [("funcvi", {"torch", "interop"}), ("interop", {"funcvi"})]
)
def test_the_packages_do_not_know_each_other(package, foreign):
    every = imports(package)
    assert f"{package}" in every
    guilty = {m: n for m, names in every.items() for n in names if n.split(".")[0] in foreign}
    assert not guilty


def test_rules_know_no_torch():
    guilty = {
        name
        for name, names in imports("interop").items()
        if name.startswith("interop.aten") or name == "interop.from_torch.program"
        if any(n.split(".")[0] == "torch" for n in names)
    }
    assert not guilty


GATEWAYS = {"funcvi._jax", "funcvi._numpyro", "interop._torch"}
LIBRARIES = {"jax", "numpyro", "optax", "torch"}


def private_names(name, tree, is_package):
    """Names of the libraries with a part that begins with one underscore, imported or read."""
    paths = set(imported(name, tree, is_package))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, inner = [], node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name):
                paths.add(".".join([inner.id, *reversed(parts)]))
    for path in paths:
        library, *parts = path.split(".")
        if library in LIBRARIES and any(p[0] == "_" and p[:2] != "__" for p in parts):
            yield path


@pytest.mark.parametrize("package", ["funcvi", "interop"])
def test_private_names_of_libraries_live_in_the_gateways(package):
    found = {name: set(private_names(name, *each)) for name, each in modules(package).items()}
    assert all(found[name] for name in GATEWAYS & set(found))
    assert not {name: names for name, names in found.items() if names and name not in GATEWAYS}


@pytest.mark.parametrize("package", ["funcvi", "interop"])
def test_no_import_cycles(package):
    every = imports(package)
    # "from package import x" is an import of package.x if that is a module, else of package.
    graph = {
        name: {m for n in names for m in [n if n in every else n.rpartition(".")[0]] if m in every}
        for name, names in every.items()
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(every)


def test_the_scan_sees_imports_of_every_form():
    code = "import torch.nn\ndef f():\n from . import a\n from .b import c\n from x import y\n"
    found = set(imported("p.m", ast.parse(code), False))
    assert found == {"torch.nn", "p.a", "p.b.c", "x.y"}

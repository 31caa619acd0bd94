"""The conventions of CONTRIBUTING.md, checked for every public name."""

import inspect
from pathlib import Path

import pytest

import funcvi as fv

ROOT = Path(__file__).parent.parent

#: Functions that draw read ``(what, key, sample_shape)``.
DRAWS = {"sample", "relaxed_one_hot", "straight_through_one_hot"}
#: Other words for a number of draws.
OTHER_COUNTS = {"num_draws", "num_evaluations", "num_particles", "n_samples", "samples", "draws"}


def callables():
    """Each public function, class and method by its dotted name."""
    for module, prefix in ((fv, ""), (fv.networks, "networks."), (fv.fitting, "fitting.")):
        for name in module.__all__:
            public = getattr(module, name)
            if inspect.ismodule(public) or not callable(public):
                continue
            yield f"{prefix}{name}", public
            if inspect.isclass(public):
                for method, function in vars(public).items():
                    inherited = any(hasattr(base, method) for base in public.__mro__[1:])
                    if inspect.isfunction(function) and not method.startswith("_") | inherited:
                        yield f"{prefix}{name}.{method}", function


PUBLIC = dict(callables())


def parameters(public):
    try:
        return inspect.signature(public).parameters
    except ValueError:  # a type of the standard library's making, such as an enum
        return {}


@pytest.mark.parametrize("name", PUBLIC)
def test_keys_are_keywords_but_where_a_function_draws(name):
    positional = [
        p
        for p in list(parameters(PUBLIC[name]).values())
        if p.name == "key" and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    last = name.rpartition(".")[2]
    draws = last in DRAWS or last in {"init", "start", "scan"} or last.startswith("sample_")
    if positional and not draws:
        # A key that says which random choices a density makes is an argument among equals.
        assert last in {"log_density", "step"}, f"{name}: make key keyword-only"


@pytest.mark.parametrize("name", PUBLIC)
def test_numbers_of_draws_have_one_name(name):
    assert not OTHER_COUNTS & set(parameters(PUBLIC[name]))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text
    assert text.splitlines()[0].endswith((".", ":")), f"{name}: the first line is a sentence"


@pytest.mark.parametrize("name", [n for n, p in PUBLIC.items() if inspect.isfunction(p)])
def test_every_public_function_has_an_example(name):
    if any(part[0].isupper() for part in name.split(".")[:-1]):
        return  # a method: its class has one
    assert ">>>" in inspect.getdoc(PUBLIC[name])


def test_losses_carry_their_sign():
    bounds = [name for name in fv.__all__ if "elbo" in name]
    assert bounds
    assert all(n.startswith("negative_") or n == "importance_weighted_elbo" for n in bounds)


@pytest.mark.parametrize("folder", ["funcvi", "interop", "tests", "examples", "benchmarks"])
def test_no_file_holds_two_ideas(folder):
    lengths = {p: len(p.read_text().splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 400}

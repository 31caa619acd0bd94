import torch

from tests.interop.aten.check import check

X = torch.tensor([-2.0, -1, 0, 0, 0.5, 1, 2, torch.inf])
Y = torch.tensor([-1.0, -1, 0, 3, 0.5, -1, torch.nan, 2])


def test_comparisons():
    names = ("eq", "ne", "lt", "le", "gt", "ge")
    functions = {name: getattr(torch, name) for name in names}
    functions |= {f"{n} number": lambda x, y, n=n: getattr(torch, n)(x, 0.5) for n in names}
    functions |= {"and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor}
    functions["isclose"] = torch.isclose
    functions["not"] = lambda x, y: torch.logical_not(x)
    functions["kinds"] = lambda x, y: (
        torch.isnan(y),
        torch.isinf(x),
        torch.isfinite(y),
        torch.isposinf(x),
        torch.isneginf(x),
        torch.signbit(x),
    )
    check(functions, X, Y)


def test_extremes_of_two():
    """Ties share the gradient, but fmax and fmin give it to the first."""
    functions = {
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "fmax": torch.fmax,
        "fmin": torch.fmin,
        "where": lambda x, y: torch.where(x > 0, x, y.nan_to_num()),
        "where number": lambda x, y: torch.where(x > 0, x, 2.0),
    }
    check(functions, X, Y.nan_to_num(4))
    check({"fmax": torch.fmax, "fmin": torch.fmin}, X[:6], Y[:6])


def test_clamp():
    """At a bound the gradient is the input's; where the bounds cross, the upper one's."""
    low, high = torch.full_like(X, -1), Y.nan_to_num(0.5)
    functions = {
        "both": lambda x, low, high: torch.clamp(x, -1, 0.5),
        "low": lambda x, low, high: torch.clamp(x, min=0),
        "high": lambda x, low, high: torch.clamp(x, max=0),
        "crossed": lambda x, low, high: torch.clamp(x, 1, -1),
        "tensors": lambda x, low, high: torch.clamp(x, low, high),
        "tensors crossed": lambda x, low, high: torch.clamp(x, high, low),
        "low tensor": lambda x, low, high: torch.clamp(x, min=low),
        "high tensor": lambda x, low, high: torch.clamp(x, max=high),
        "clamp_min": lambda x, low, high: torch.clamp_min(x, low),
        "clamp_max": lambda x, low, high: torch.clamp_max(x, 0.5),
    }
    check(functions, X, low, high)


def test_bits():
    x, y = torch.tensor([-5, 0, 3, 12]), torch.tensor([3, 1, 2, 0])
    functions = {
        "and": lambda x, y: x & y,
        "or": lambda x, y: x | 6,
        "xor": lambda x, y: x ^ y,
        "not": lambda x, y: ~x,
        "bools": lambda x, y: ~(x > 0) & (y > 1) | (x > y),
        "left": lambda x, y: x << y,
        "right": lambda x, y: x >> y,
        "clamp": lambda x, y: torch.clamp(x, -1, 4),
        "clamp to float": lambda x, y: torch.clamp(x, min=0.5),
        "maximum": torch.maximum,
    }
    check(functions, x, y)

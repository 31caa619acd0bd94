import pytest
import torch

from tests.interop.aten.check import KINKS, check, draw, draw_integers

FUNCTIONS = """
neg exp exp2 expm1 log log1p log2 log10 sqrt rsqrt reciprocal square sin cos tan asin acos
atan sinh cosh tanh asinh acosh atanh sigmoid sinc deg2rad rad2deg abs sign sgn floor ceil
trunc fix round frac relu positive angle nan_to_num
"""


def named(names: str) -> dict:
    return {name: getattr(torch, name) for name in names.split()}


@pytest.mark.parametrize("part", range(4))
def test_of_one(part):
    check(named(" ".join(FUNCTIONS.split()[part::4])), KINKS)


def test_of_one_where_it_is_not_finite():
    names = "exp log sqrt rsqrt reciprocal tanh sigmoid abs sign floor round nan_to_num"
    functions = {"remainder": lambda x: torch.remainder(torch.full_like(x, 5), x)}
    check(functions, torch.tensor([torch.inf, -torch.inf, 3, -3]))
    check(named(names), torch.tensor([torch.inf, -torch.inf, torch.nan, 1e30, -1e-30]))


def test_of_integers():
    integers = draw_integers(1, 9, 3, 4)
    check(named("neg exp log sqrt sin sigmoid abs sign floor round square sinc"), integers)


GRID = torch.cartesian_prod(
    torch.tensor([-2.5, -1, -0.0, 0, 0.7, 2, 5]), torch.tensor([-2, -1, 0, 0.5, 1, 3])
).T

OF_TWO = {
    "add": lambda x, y: torch.add(x, y, alpha=2),
    "sub": lambda x, y: torch.sub(x, y, alpha=0.5),
    "rsub": lambda x, y: torch.rsub(x, y, alpha=3),
    "mul": torch.mul,
    "div": torch.div,
    "div floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "div trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "floor_divide": lambda x, y: torch.floor_divide(x.detach(), y.detach()),
    "remainder": lambda x, y: torch.remainder(x, torch.where(y == 0, 1, y)),
    "fmod": lambda x, y: torch.fmod(x, torch.where(y == 0, 1, y)),
    "pow": torch.pow,
    "float_power": torch.float_power,
    "atan2": torch.atan2,
    "copysign": torch.copysign,
    "logaddexp": torch.logaddexp,
    "logaddexp2": torch.logaddexp2,
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp tensor": lambda x, y: torch.lerp(x, y, y),
    "addcmul": lambda x, y: torch.addcmul(x, y, x, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, x, y, value=2),
    "ldexp": torch.ldexp,
    "xlogy": lambda x, y: torch.xlogy(x, y.abs()),
}


@pytest.mark.parametrize("part", range(3))
def test_of_two(part):
    check(dict(list(OF_TWO.items())[part::3]), *GRID.clone())


def test_powers():
    exponents = (-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 70)
    functions = {f"pow {p}": lambda x, p=p: torch.pow(x, p) for p in exponents}
    functions |= {f"base {b}": lambda x, b=b: torch.pow(b, x) for b in (-2.0, 0, 2)}
    check(functions, torch.tensor([-1.5, -0.0, 0, 0.3, 1, 2]))


def test_hypot_away_from_the_origin_and_frexp():
    check({"hypot": torch.hypot, "nextafter": torch.nextafter}, draw(7), draw(7, seed=1))
    check({"frexp": lambda x: torch.frexp(x)[0]}, draw(7))


def test_integers_and_promotion():
    x, y = torch.tensor([-7, -1, 0, 5, 9]), torch.tensor([2, -3, 4, -5, 7])
    functions = {
        "div": torch.div,
        "floor": torch.floor_divide,
        "trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        "remainder": torch.remainder,
        "fmod": torch.fmod,
        "gcd": torch.gcd,
        "lcm": torch.lcm,
        "number": lambda x, y: x + 0.5,
        "half": lambda x, y: x.half() * torch.ones((), dtype=torch.float32),
        "bfloat16": lambda x, y: x.bfloat16() + y.float()[0],
        "wide zero": lambda x, y: x.float() * torch.ones((), dtype=torch.int64),
        "bool": lambda x, y: (x > 0) + (y > 0),
        "bool product": lambda x, y: (x > 0) * y,
        "power": lambda x, y: x**2,
        "complex": lambda x, y: torch.complex(x.float(), y.float()),
    }
    check(functions, x, y)


def test_complex():
    z = draw(5, dtype=torch.complex64)
    z = torch.cat([z, torch.zeros(1, dtype=z.dtype)])
    names = "neg exp sin cos tanh square conj_physical abs sgn"
    functions = named(names) | {
        "real": torch.real,
        "imag": torch.imag,
        "conj": torch.conj,
        "product": lambda z: z * (1 + 2j),
        "polar": lambda z: torch.polar(z.real.abs() + 1, z.imag),
    }
    check(functions, z)
    check({"angle": torch.angle, "log": torch.log, "sqrt": torch.sqrt}, z[:5])

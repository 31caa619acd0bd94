import jax
import numpy as np
import pytest
import scipy.special
import torch
from torch import special

from interop import ConversionError, to_jax
from tests.interop.aten.check import FAST, All, check

LINE = torch.tensor([-6.3, -2.5, -1.1, -0.6, -0.0, 0.0, 1e-3, 0.2, 0.5, 1, 1.7, 3, 8, 22])
LINE = torch.cat([LINE, torch.tensor([torch.nan])])
INSIDE = torch.tensor([-1.5, -1, -0.9, -0.2, 0.0, 1e-4, 0.3, 0.99, 1, 1.5])

OF_ONE = {
    "digamma": torch.digamma,
    "lgamma": torch.lgamma,
    "polygamma 0": lambda x: torch.polygamma(0, x),
    "polygamma 2": lambda x: torch.polygamma(2, x),
    "polygamma 3": lambda x: torch.polygamma(3, x),
    "mvlgamma": lambda x: torch.mvlgamma(x.nan_to_num().abs() + 2, 3),
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfcx": special.erfcx,
    "ndtr": special.ndtr,
    "log_ndtr": special.log_ndtr,
    "i0": torch.i0,
    "i0e": special.i0e,
    "i1": lambda x: special.i1(x.nan_to_num()),
    "i1e": lambda x: special.i1e(x.nan_to_num()),
    "entr": special.entr,
    "j0 sphere": special.spherical_bessel_j0,
    "modified i0": special.modified_bessel_i0,
    "modified i1": special.modified_bessel_i1,
    "k0": special.modified_bessel_k0,
    "k1": special.modified_bessel_k1,
    "k0 scaled": special.scaled_modified_bessel_k0,
    "k1 scaled": special.scaled_modified_bessel_k1,
}


@pytest.mark.few(1)
@pytest.mark.parametrize("part", range(3))
def test_of_one(part):
    check(dict(list(OF_ONE.items())[part::3]), LINE, tolerance=3)


def test_trigamma():
    """torch's own has nine digits."""
    check({"polygamma 1": lambda x: torch.polygamma(1, x)}, LINE[3:], tolerance=50)


def test_of_one_inside():
    functions = {
        "erfinv": torch.erfinv,
        "ndtri": special.ndtri,
        "logit": torch.logit,
        "logit eps": lambda x: torch.logit(x, 0.3),
    }
    check(functions, INSIDE)


X = torch.tensor([-1.0, 0, 0, 0, 0.5, 2, 3])
Y = torch.tensor([0.5, 0, 2, -3, 1, 0, 4])


def test_of_two():
    functions = {
        "xlogy": torch.xlogy,
        "xlogy number": lambda x, y: torch.xlogy(x, 2.0) + torch.xlogy(0.5, y),
        "xlog1py": special.xlog1py,
        "zeta": lambda x, y: special.zeta(x.detach().round().abs() + 2, y + 0.25),
        "igamma": lambda x, y: torch.igamma(x.detach().abs() + 0.5, y.abs() + 0.1),
        "igammac": lambda x, y: torch.igammac(x.detach().abs() + 0.5, y.abs() + 0.1),
    }
    check(functions, X, Y, tolerance=5)


FAMILIES = [
    f"{name}_polynomial_{letter}"
    for name, letters in {
        "chebyshev": "tuvw",
        "shifted_chebyshev": "tuvw",
        "laguerre": "l",
        "legendre": "p",
        "hermite": ("h", "he"),
    }.items()
    for letter in letters
]


def test_polynomials():
    x, n = torch.meshgrid(
        torch.tensor([-1.3, -1, -0.4, 0, 0.7, 1, 1.2]),
        torch.tensor([-1.0, 0, 1, 2.5, 5, 9]),
        indexing="ij",
    )
    check({name: getattr(special, name) for name in FAMILIES}, x, n, tolerance=20)
    check({"number": lambda x: special.legendre_polynomial_p(x, 3)}, x)


@pytest.mark.parametrize("wide", [False, True])
def test_bessel_and_airy_are_exact(wide):
    """torch's own have only seven digits in double."""
    functions = {
        special.bessel_j0: scipy.special.j0,
        special.bessel_j1: scipy.special.j1,
        special.bessel_y0: scipy.special.y0,
        special.bessel_y1: scipy.special.y1,
        special.airy_ai: lambda x: scipy.special.airy(x)[0],
    }
    x = np.concatenate([np.linspace(-30, 60, 181), [1e-3, 25, -9.5, 1.5]])
    with jax.enable_x64(wide):
        x = x.astype(np.float64 if wide else np.float32)
        net = to_jax(All({str(f): f for f in functions}))
        call = jax.jit(lambda x: net({}, *[[x]] * len(functions)), compiler_options=FAST)
        found = call(x)
        for have, exact in zip(found, functions.values(), strict=True):
            want = exact(x.astype(np.float64))
            eps = 1e-12 if wide else 2e-5
            np.testing.assert_allclose(have, want, rtol=eps, atol=eps)


def test_zeta_has_no_gradient_by_its_order():
    net = to_jax(All({"zeta": special.zeta}))
    with pytest.raises(ConversionError, match="zeta"):
        jax.grad(lambda s: net({}, [s, np.float32(2)])[0])(np.float32(3))

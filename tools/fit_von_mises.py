"""Fits the polynomials in funcvi/sampling/von_mises_coefficients.py, and prints their errors.

    python tools/fit_von_mises.py > funcvi/sampling/von_mises_coefficients.py    (needs scipy)

The references are Gauss-Legendre quadratures of the density in double precision, on the side of the
point where nothing cancels. What each table holds is said in funcvi/sampling/von_mises.py.
"""

from itertools import pairwise

import numpy as np
from fit_coefficients import evaluate, fit, grid, nodes, report, table
from scipy import special

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(120)
LAST_TAIL = 2.0**-34  # half of the least v
#: Concentrations where one panel ends and the next begins; the last has none above.
PANELS = (0.0, 1.0, 2.4, 6.0, 20.0)
BEND = 4.0  # the outer variable is concentration / (concentration + BEND)
LAYER = (1.0, 3.0)  # of the inner variable, for quantile and velocity


def integral(f, a, b):
    t = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * POINTS
    return (f(t) * WEIGHTS).sum(1) * (b - a) / 2


def relative(x, k):
    """The density over that at x."""
    return lambda t: np.exp(2 * k[:, None] * (np.sin(x / 2)[:, None] ** 2 - np.sin(t / 2) ** 2))


def reach(x, k):
    return np.minimum(np.pi, x + 40 / np.sqrt(k + 1e-9))


def tail(x, k):
    """P(X > x) for x in (0, pi)."""
    density = np.exp(-2 * k * np.sin(x / 2) ** 2) / (2 * np.pi * special.i0e(k))
    return integral(relative(x, k), x, reach(x, k)) * density


def pull(x, k):
    """-(dx / dk) / sin x."""
    to_one = 1 - special.i1e(k) / special.i0e(k)

    def integrand(t):
        return (to_one[:, None] - 2 * np.sin(t / 2) ** 2) * relative(x, k)(t)

    outside = -integral(integrand, x, reach(x, k))
    inside = integral(integrand, np.zeros_like(x), x)
    near = (2 * k * np.sin(x / 2) ** 2 < 1) | ((k < 2) & (x < 1.5))
    return np.where(near, inside, outside) / np.sin(x)


def normal_of(p, k):
    """|z| of the truncated normal at tail probability p."""
    e = special.erfc(np.sqrt(2 * k))
    both = e + 2 * p * (1 - e)
    inside = np.sqrt(2) * special.erfinv((1 - 2 * p) * (1 - e))
    return np.where(both < 0.5, -special.ndtri(both / 2), inside)


def squeezed(k):
    return k / (k + BEND)


def layered(o, k, width):
    """From 0 at the antipode to 1 at the location, finest within width / k of the antipode."""
    return o * (k + width) / (k * o + width)


def kept(x, k):
    p = tail(x, k)
    keep = p > LAST_TAIL
    return x[keep], k[keep], p[keep]


def panel(low, high, name):
    s = squeezed(low) + nodes(30, 0, 1) * (squeezed(high) - squeezed(low))
    s = np.maximum(s, 1e-4)
    fractions = np.concatenate([np.linspace(0, 1, 56)[1:-1], 1 - np.geomspace(1e-4, 0.15, 12)])
    x, k, p = kept(*grid(np.pi * fractions, BEND * s / (1 - s)))
    outer = (squeezed(k) - squeezed(low)) / (squeezed(high) - squeezed(low))
    # Errors count less where few draws are.
    rare = np.sqrt(2 * p)

    xi = normal_of(p, k) / (2 * np.sqrt(k))
    ok = 1 - xi > 1e-5
    bump = xi * (1 - xi**2)
    value = (np.pi * xi - x)[ok] / bump[ok]
    inner = 2 * layered(1 - xi**2, k, LAYER[0])[ok] - 1
    weight = (np.maximum(rare, 1e-3) * bump * np.sqrt(1 + k))[ok]
    error, rows = fit(inner, outer[ok], value, (14, 8), weight, rounds=14)
    single = np.abs(evaluate(rows, inner, outer[ok]) - value) * weight
    report(f"quantile {name} (in standard deviations, weighted)", rows, error, single)

    value = pull(x, k) * (1 + k * (1 + np.cos(x)))
    inner = 2 * layered(np.cos(x / 2) ** 2, k, LAYER[1]) - 1
    weight = np.maximum(rare, 1e-2) / value
    error, pulls = fit(inner, outer, value, (12, 8), weight, rounds=14)
    single = np.abs(evaluate(pulls, inner, outer) - value) / value
    report(f"pull {name} (weighted)", pulls, error, single)
    return rows, pulls


def concentrated():
    """Above the last panel: x sqrt(k) / |z| in z**2, the pull in k sin(x/2)**2; and in 1 / k."""
    least = PANELS[-1]
    k = least / np.maximum(nodes(30, 0, 1), 1e-4)
    fractions = np.append(np.linspace(0, 1, 70)[1:-1], 0.002)
    width = np.minimum(1, 2.9 / np.sqrt(k))
    x = (np.pi * fractions * width[:, None]).ravel()
    x, k, p = kept(x, np.repeat(k, len(fractions)))
    rare = np.sqrt(2 * p)
    z = normal_of(p, k)
    value, inner, outer = x * np.sqrt(k) / z, z**2, least / k
    most, weight = inner.max(), np.maximum(rare, 1e-3) * z
    error, rows = fit(2 * inner / most - 1, outer, value, (8, 5), weight)
    single = np.abs(evaluate(rows, 2 * inner / most - 1, outer) - value) * weight
    report("quantile concentrated (in standard deviations, weighted)", rows, error, single)
    print(f"MOST_SQUARE = {most:.10g}")
    table("QUANTILE_CONCENTRATED", rows)

    value = pull(x, k) * (1 + k * (1 + np.cos(x)))
    inner = k * np.sin(x / 2) ** 2
    most = inner.max()
    error, rows = fit(2 * inner / most - 1, outer, value, (10, 6), np.maximum(rare, 1e-2) / value)
    single = np.abs(evaluate(rows, 2 * inner / most - 1, outer) - value) / value
    report("pull concentrated (weighted)", rows, error, single)
    print(f"MOST_ENERGY = {most:.10g}")
    table("PULL_CONCENTRATED", rows)


def tables(name, all_rows):
    print(f"{name} = (")
    for rows in all_rows:
        print("  (")
        for row in rows:
            print("    (" + ", ".join(f"{c:.10g}" for c in row) + ",),")
        print("  ),")
    print(")")


if __name__ == "__main__":
    print('"""Made by tools/fit_von_mises.py: powers of an inner variable, a row for each power')
    print('of an outer one, for each panel of concentrations."""\n')
    print("# fmt: off")
    print(f"PANELS = {PANELS}")
    print(f"BEND = {BEND}")
    print(f"LAYER = {LAYER}")
    found = [panel(low, high, f"{low:g}-{high:g}") for low, high in pairwise(PANELS)]
    tables("QUANTILE", [rows for rows, _ in found])
    tables("PULL", [pulls for _, pulls in found])
    concentrated()

"""Fits the polynomials in funcvi/sampling/coefficients.py, and prints how far each is off.

    python tools/fit_coefficients.py > funcvi/sampling/coefficients.py  (a minute; needs scipy)

The references are scipy's incomplete gamma function and its inverse in double precision, and their
derivative in the concentration by eighth-order differences of the quantile, which agree with mpmath
to about 1e-13. What each table holds is said in funcvi/sampling/noise.py and gamma.py.
"""

import sys

import numpy as np
from numpy.polynomial import chebyshev, polynomial
from scipy import special

STENCIL = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
OFFSETS = np.arange(-4, 5)
LARGEST_NORMAL = 6.36  # of 32 random bits
#: In the quantile's variable u / sqrt(u**2 + BEND**2), so that both tails bend alike.
BEND = 5.0


def log_ratio(z, s):
    """log(x / concentration) at the quantile Phi(z), for concentration 1 / s**2."""
    a = 1 / s**2
    low = special.gammaincinv(a, special.ndtr(z))
    high = special.gammainccinv(a, special.ndtr(-z))
    return np.log(np.where(z < 0, low, high)) - np.log(a)


def elasticity_at_quantile(z, s):
    """d log x / d log concentration along a quantile, for concentrations of one and more."""
    h = np.minimum(0.01, s / 8)
    slope = sum(c * log_ratio(z, s + k * h) for c, k in zip(STENCIL, OFFSETS, strict=True)) / h
    return 1 - (s / 2) * slope


def elasticity_at(a, x):
    """The same at a point x, for any concentration."""
    p, q = special.gammainc(a, x), special.gammaincc(a, x)
    low, total = p < 0.5, 0.0
    for c, k in zip(STENCIL, OFFSETS, strict=True):
        near = a * np.exp(0.01 * k)
        moved = np.where(
            low,
            special.gammaincinv(near, np.where(low, p, 0.5)),
            special.gammainccinv(near, np.where(low, 0.5, q)),
        )
        total = total + c * np.log(moved)
    return total / 0.01


def series(a, x):
    """S and B of the power series: elasticity = B - S log x."""
    term, d_log_term = np.ones_like(x), np.zeros_like(x)
    s, ds = np.ones_like(x), np.zeros_like(x)
    for k in range(1, 80):
        term = term * x / (a + k)
        d_log_term = d_log_term - 1 / (a + k)
        s, ds = s + term, ds + term * d_log_term
    return s, s * special.digamma(a + 1) - ds


def nodes(n, low, high):
    return (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def grid(*axes):
    return [g.ravel() for g in np.meshgrid(*axes, indexing="ij")]


def fit(inner, outer, value, degrees, weight, shape=1.1, rounds=25):
    """Nearly minimax, by reweighted least squares (Lawson); rows of powers of ``inner``, one for
    each power of ``outer``. Both variables are in [-1, 1] or [0, 1]."""
    di, do = degrees
    outer_centred = 2 * outer - 1
    pairs = [
        (i, j) for i in range(di + 1) for j in range(do + 1) if i / di + j / do <= shape + 1e-9
    ]
    basis = chebyshev.chebvander(inner, di)
    other = chebyshev.chebvander(outer_centred, do)
    a = np.stack([basis[:, i] * other[:, j] for i, j in pairs], axis=1)
    lawson, best = np.ones(len(value)), (np.inf, None)
    for _ in range(rounds):
        w = weight * np.sqrt(lawson)
        c = np.linalg.lstsq(a * w[:, None], value * w, rcond=1e-15)[0]
        r = np.abs(a @ c - value) * weight
        if r.max() < best[0]:
            best = (r.max(), c)
        lawson *= r / r.max() + 1e-3
        lawson /= lawson.mean()
    matrix = np.zeros((do + 1, di + 1))
    for (i, j), c in zip(pairs, best[1], strict=True):
        matrix[j, i] = c
    rows = np.stack([_padded(chebyshev.cheb2poly(row), di) for row in matrix])
    columns = np.stack([_shifted(column) for column in rows.T])
    lengths = [max(i for i, jj in pairs if jj >= j) + 1 for j in range(do + 1)]
    return best[0], [columns.T[j, : lengths[j]] for j in range(do + 1)]


def _padded(p, degree):
    return np.pad(p, (0, degree + 1 - len(p)))


def _shifted(c):
    """Chebyshev coefficients in 2 v - 1 to powers of v."""
    p = chebyshev.cheb2poly(c)
    total = np.zeros(1)
    for coefficient in p[::-1]:
        total = polynomial.polyadd(polynomial.polymul(total, [-1.0, 2.0]), [coefficient])
    return _padded(total[: len(c)], len(c) - 1)


def evaluate(rows, inner, outer, dtype=np.float32):
    inner, outer, total = inner.astype(dtype), outer.astype(dtype), dtype(0)
    for row in rows[::-1]:
        value = dtype(0)
        for c in row[::-1]:
            value = value * inner + dtype(c)
        total = total * outer + value
    return total


def report(name, rows, error, single):
    count = sum(len(row) for row in rows)
    print(
        f"{name}: {count} coefficients, off by {error:.1e}; in float32 by "
        f"{np.median(single):.1e} (median), {np.quantile(single, 0.99):.1e} (99 %), "
        f"{single.max():.1e} (most)",
        file=sys.stderr,
    )


def table(name, rows):
    print(f"{name} = (")
    for row in rows:
        print("    (" + ", ".join(f"{c:.10g}" for c in row) + ",),")
    print(")")


def one_variable(name, inner, value, degree):
    """A relative minimax polynomial of ``inner`` in [-1, 1]."""
    basis = chebyshev.chebvander(inner, degree)
    lawson = np.ones_like(value)
    for _ in range(40):
        weight = np.sqrt(lawson) / value
        c = np.linalg.lstsq(basis * weight[:, None], value * weight, rcond=None)[0]
        r = np.abs(basis @ c / value - 1)
        lawson *= r / r.max() + 1e-3
    powers = chebyshev.cheb2poly(c)
    got = evaluate([powers], inner, inner)
    report(name, [powers], r.max(), np.abs(got / value - 1))
    print(f"{name} = (" + ", ".join(f"{c:.10g}" for c in powers) + ")")


def normal():
    """z / (1 - v) at the upper tail probability v / 2, in w / (w + 10) with w = -log(v (2 - v))."""
    w = 10 / (1 - nodes(300, 0, 22 / 32)) - 10
    one_minus_v = np.sqrt(-np.expm1(-w))
    value = -special.ndtri(np.exp(-w) / (1 + one_minus_v) / 2) / one_minus_v
    one_variable("NORMAL", w / (w + 10) / (22 / 32) * 2 - 1, value, 12)


def tangent():
    """tan(pi t / 2) / t in 8 t**2 - 1, for t up to a half."""
    t = np.sqrt(nodes(200, 0, 0.25))
    one_variable("TANGENT", 8 * t**2 - 1, np.tan(np.pi * t / 2) / t, 6)


def near_normal(z, s):
    """log_ratio for s of 1e-4 and less, where scipy loses digits: its expansion about s = 0."""
    u = z * s
    return u - u**2 / 6 + u**3 / 36 - s**2 / 3 + 5 * u * s**2 / 36


def quantile():
    z = nodes(90, -LARGEST_NORMAL, LARGEST_NORMAL)
    far = grid(z, np.array([1e-6, 1e-5, 1e-4]))
    z, s = grid(z, np.maximum(nodes(50, 0, 1), 0.002))
    value = np.append(log_ratio(z, s), near_normal(*far))
    z, s = np.append(z, far[0]), np.append(s, far[1])
    u, v = z * s, s**2
    inner = u / np.sqrt(u**2 + BEND**2)
    scale = LARGEST_NORMAL / np.hypot(LARGEST_NORMAL, BEND)
    error, rows = fit(inner / scale, v, value, (24, 8), 1 / s, shape=1.05)
    rows[0][0] = 0.0
    rows = [row / scale ** np.arange(len(row)) for row in rows]
    single = np.abs(evaluate(rows, inner, v) - value) / s
    report("quantile (in standard deviations)", rows, error, single)
    table("LOG_QUANTILE", rows)


def large():
    z, s = grid(nodes(90, -LARGEST_NORMAL, LARGEST_NORMAL), np.maximum(nodes(50, 0, 1), 0.002))
    w, v = log_ratio(z, s), s**2
    keep = np.exp(w) / v > 0.97
    z, s, w, v = z[keep], s[keep], w[keep], v[keep]
    value = elasticity_at_quantile(z, s)
    low, high = w.min(), w.max()
    print(f"LARGE_RANGE = ({low:.6f}, {high:.6f})")
    error, rows = fit(w / 3.2, v, value, (14, 6), 1 / value)
    rows[0][0] = 1.0
    rows = [row / 3.2 ** np.arange(len(row)) for row in rows]
    report("large", rows, error, np.abs(evaluate(rows, w, v) / value - 1))
    table("LARGE", rows)


def tail():
    a, log_x = grid(nodes(36, 0.001, 1.02), nodes(40, np.log(0.97), np.log(27.0)))
    x = np.exp(log_x)
    value = elasticity_at(a, x) * x
    inner = (2 * log_x - np.log(27.0)) / np.log(27.0)
    error, rows = fit(inner, a, value, (11, 8), 1 / value)
    report("tail", rows, error, np.abs(evaluate(rows, inner, a) / value - 1))
    table("TAIL", rows)


def origin():
    a, x = grid(np.expm1(nodes(60, 0, np.log(13.0))), nodes(40, 0, 1.03))
    s, b = series(a, x)
    scale = np.log(13.0)
    error_s, rows_s = fit(2 * a / (a + 1.4) / (12 / 13.4) - 1, x, s, (9, 7), np.ones_like(s))
    error_b, rows_b = fit(2 * np.log1p(a) / scale - 1, x, b, (12, 8), np.ones_like(b))
    a, log_x = grid(
        np.geomspace(1e-4, 12, 60), np.append(np.linspace(-300, -5, 90), nodes(200, -5, 0))
    )
    x = np.exp(log_x)
    s, b = series(a, x)
    value = b - s * log_x
    got = evaluate(rows_b, 2 * np.log1p(a) / scale - 1, x) - np.float32(log_x) * evaluate(
        rows_s, 2 * a / (a + 1.4) / (12 / 13.4) - 1, x
    )
    report("origin", [*rows_s, *rows_b], max(error_s, error_b), np.abs(got / value - 1))
    table("ORIGIN_SERIES", rows_s)
    table("ORIGIN_OFFSET", rows_b)


if __name__ == "__main__":
    print('"""Made by tools/fit_coefficients.py: powers of an inner variable, a row for each power')
    print('of an outer one."""\n')
    print("# fmt: off")
    normal()
    tangent()
    print(f"BEND = {BEND}")
    quantile()
    large()
    tail()
    origin()

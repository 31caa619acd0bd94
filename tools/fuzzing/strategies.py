"""Which cases are drawn, and how often."""

from typing import Any

import hypothesis.strategies as hs

from fuzzing.cases import FUNCTIONS, GUIDED, OBJECTIVES, SITES, Case
from fuzzing.laws import KINDS, Law, roles_of

_TRUNCATABLE = ("Normal", "Laplace", "Logistic", "Cauchy", "StudentT", "SoftLaplace")
_WIDER = {
    "positive": ("positive", "positive", "real"),
    "unit": ("unit", "unit", "positive", "real"),
    "edge": ("real", "positive", "edge"),
    "real": ("real", "real", "real", "positive", "edge"),
    "atom": ("real", "positive", "unit", "edge", "circle", "atom"),
}


def plain_laws(domain: str) -> hs.SearchStrategy[Law]:
    return hs.sampled_from([Law(name) for name, kind in KINDS.items() if kind.domain == domain])


def truncations() -> hs.SearchStrategy[Law]:
    base = hs.sampled_from([Law(n) for n in _TRUNCATABLE])
    kinds = hs.sampled_from(("TruncatedLow", "TruncatedHigh", "TruncatedBoth"))
    return hs.tuples(kinds, base).map(lambda pair: Law(pair[0], (pair[1],)))


def laws(domain: str) -> hs.SearchStrategy[Law]:
    """Laws with values in a domain, plain or composed of others."""
    plain = plain_laws(domain)
    if domain in ("circle", "two", "three", "six", "atom", "simplex", "plane"):
        return plain
    mixture = hs.tuples(hs.just("MixtureGeneral"), hs.tuples(plain, plain))
    same = plain.map(lambda law: ("MixtureSame", (law, law)))
    if domain == "count":
        return plain | same.map(lambda pair: Law(*pair))
    real = plain_laws("real")

    def one(name: str, of: hs.SearchStrategy[Law]) -> hs.SearchStrategy[tuple[str, tuple[Law]]]:
        return of.map(lambda law: (name, (law,)))

    even = hs.sampled_from([Law(n) for n in _TRUNCATABLE])
    options = {
        "real": [one("Affine", real), hs.tuples(hs.just("MixtureGeneral"), hs.tuples(real, real))],
        "positive": [one("Exp", real), one("Folded", even)],
        "unit": [one("Sigmoid", real)],
        "edge": [
            truncations().map(lambda law: (law.kind, law.parts)),
            one("Affine", plain_laws("positive") | plain_laws("unit")),
            hs.tuples(hs.just("MixtureGeneral"), hs.tuples(real, plain_laws("positive"))),
        ],
    }[domain]
    if domain in ("real", "positive"):
        options += [mixture, same]
    composed = hs.one_of(options).map(lambda pair: Law(*pair))
    return plain | composed


def bends(law: Law) -> bool:
    return law.kind in ("Laplace", "AsymmetricLaplace") or any(map(bends, law.parts))


DOMAINS = (
    *("real", "positive", "unit", "edge", "circle"),
    *("two", "three", "six", "count", "atom", "simplex", "plane"),
)
_VECTORS = ("simplex", "plane")
_WEIGHTS = {"kl": 3, "expectation": 2, "iw": 2, "elbo": 2, "renyi": 1, "forward_kl": 2, "sample": 1}


@hs.composite
def cases(draw: Any, only: str | None = None) -> Case:
    """Any case; ``only`` names the objective."""
    objective = only or draw(hs.sampled_from([n for n, k in _WEIGHTS.items() for _ in range(k)]))
    site = draw(hs.sampled_from(list(SITES))) if objective in GUIDED else "real"
    if objective in GUIDED:
        domain = "real"
    elif objective == "iw":
        domain = draw(hs.sampled_from(("real", "two", "three", "count", "positive")))
    else:
        known = DOMAINS if objective != "expectation" else DOMAINS[: -len(_VECTORS)]
        domain = draw(hs.sampled_from(known))
    function = p = None
    if objective == "expectation":
        function = draw(hs.sampled_from(list(FUNCTIONS)))
    elif objective in GUIDED:
        theirs = plain_laws("edge") | truncations() if site == "edge" else laws(site)
        p = draw(theirs)
    elif objective != "sample":
        theirs = (domain,) if objective == "iw" else _WIDER.get(domain, (domain,))
        p = draw(laws(draw(hs.sampled_from(theirs))))
    wrapper = draw(hs.sampled_from(_wrappers(objective, site)))
    q = Law("Normal") if wrapper == "mean_field" else draw(laws(domain))
    fixed = objective in GUIDED or draw(hs.sampled_from([False, False, True]))
    rows = 1 if objective in GUIDED or wrapper in ("none", "expand") else 2
    own = len(roles_of(q))
    rest = len(roles_of(p)) if p else len(FUNCTIONS[function].roles) if function else 0
    notch = hs.integers(-4, 4) | hs.integers(-4, 4) | hs.integers(-9, 9)
    row = hs.tuples(*[notch] * (own + rest))
    point = hs.tuples(*[row] * rows)
    # A target of the user's own that bends has no right second derivative: that is documented.
    orders = [1, 0] if p and objective != "kl" and bends(p) else [2, 1, 0]
    # Of angles, "pathwise" promises a function that is continuous on the circle: none of ours is.
    unfit = "pathwise" if domain == "circle" and function else ""
    estimators = [e for e in OBJECTIVES[objective][2] if e != unfit]
    way = draw(hs.sampled_from(["vmap", "vmap", "jit", "scan", "scan", "eager"]))
    if way == "eager":  # a second derivative takes minutes there, operation by operation
        orders = [1, 0]
    # numpyro draws from a model that is read, and factors matrices, but not in half precision.
    wide = wrapper in ("model", "mean_field") or domain == "plane"
    points = hs.tuples(*[point] * (1 if fixed else draw(hs.sampled_from([5, 1]))))
    return Case(
        objective,
        q,
        p,
        function,
        draw(points),
        wrapper,
        draw(hs.sampled_from([None, None, None, *estimators])),
        draw(hs.sampled_from(_FULL if wide else [*_FULL, "bfloat16", "float16"])),
        0 if objective == "sample" else draw(hs.sampled_from(orders)),
        draw(hs.sampled_from(["jvp of grad", "hessian", "grad of grad", "jvp of jvp"])),
        way,
        fixed,
        draw(hs.sampled_from([8, 2, 3])),
        site,
    )


_FULL = [*("float32", "float64") * 3]


def _wrappers(objective: str, site: str) -> list[str]:
    if objective in GUIDED:
        # numpyro's own densities lose the digits of what is near an end; a model has ours.
        return ["none", "model", "mean_field"] if site == "real" else ["model", "mean_field"]
    if objective == "expectation":
        return ["none", "expand", "batch", "batch", "joint", "to_event"]
    plain = ["none", "expand", "batch"]
    return plain if objective == "iw" else [*plain, "mask", "joint", "to_event"]

"""Laws of every transform: round trip, Jacobian, codomain, extremes, shapes, pytree, jit, vmap."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

from funcvi import bijections as T
from funcvi import vector_bijections as V
from funcvi.constraints import bijection_for, constraint_name

#: Name to (transform, shape of an unconstrained point).
CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "CovarianceFactor": (V.CovarianceFactor, (6,)),
    "CovarianceFactor/1": (V.CovarianceFactor, (1,)),
    "Exp": (T.Exp, ()),
    "Exp/floor": (lambda: T.Exp(0.1), ()),
    "Interval": (lambda: T.Interval(-0.7, 2.3), ()),
    "Interval/unit": (lambda: T.Interval(0.0, 1.0), ()),
    "Interval/far": (lambda: T.Interval(1e3, 1e3 + 1), ()),
    "Interval/array": (lambda: T.Interval(jnp.array([-1.0, 0.5]), jnp.array([0.0, 3.0])), (2,)),
    "LowerBound": (lambda: T.LowerBound(-0.7), ()),
    "LowerBound/far": (lambda: T.LowerBound(1e3), ()),
    "Ordered": (V.Ordered, (4,)),
    "PositiveOrdered": (V.PositiveOrdered, (4,)),
    "SignedExp": (lambda: T.SignedExp(True), ()),
    "SignedExp/array": (lambda: T.SignedExp(jnp.array([True, False])), (2,)),
    "Simplex": (V.Simplex, (4,)),
    "Simplex/2": (V.Simplex, (1,)),
    "Softplus": (T.Softplus, ()),
    "Softplus/floor": (lambda: T.Softplus(0.1), ()),
    "UpperBound": (lambda: T.UpperBound(-0.7), ()),
    "UpperBound/far": (lambda: T.UpperBound(1e3), ()),
    "Wrap": (T.Wrap, ()),
}
NAMES = list(CASES)


def points(name: str, count: int = 5, size: float = 1.2) -> Any:
    """Unconstrained points (count, *shape), within a turn for the angle."""
    shape = CASES[name][1]
    return jnp.array(np.random.default_rng(0).normal(0, size, (count, *shape)).clip(-3, 3), float)


def free_entries(name: str, y: Any) -> Any:
    """As many entries of ``y`` as ``x`` has: the coordinates that the density is in."""
    if name.startswith("Simplex"):
        return y[..., :-1]
    if name.startswith("CovarianceFactor"):
        return y[jnp.tril_indices(y.shape[-1])]
    return y


def _is_bijection(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, T.Bijection) and value is not T.Bijection


def test_the_catalogue_covers_every_transform() -> None:
    assert {name.split("/")[0] for name in CASES} == {
        name for module in (T, V) for name in module.__all__ if _is_bijection(getattr(module, name))
    }


@pytest.mark.few(4)
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_shape_and_codomain(name: str) -> None:
    with jax.enable_x64(True):
        transform = CASES[name][0]()
        x = points(name)
        y = transform(x)
        assert y.dtype == x.dtype == jnp.float64
        np.testing.assert_allclose(transform.inv(y), x, rtol=1e-9, atol=1e-9)
        assert jnp.shape(y) == tuple(transform.forward_shape(x.shape))
        assert jnp.shape(x) == tuple(transform.inverse_shape(y.shape))
        assert np.all(transform.codomain(y))
    assert CASES[name][0]()(points(name)).dtype == jnp.float32


@pytest.mark.few(4)
@pytest.mark.parametrize("name", NAMES)
def test_log_abs_det_jacobian_is_that_of_autodiff(name: str) -> None:
    with jax.enable_x64(True):
        transform = CASES[name][0]()
        elementwise = transform.domain.event_dim == 0
        for x in points(name, 3):
            jacobian = jax.jacobian(lambda x: free_entries(name, transform(x)))(x)
            stated = transform.log_abs_det_jacobian(x, transform(x))
            if elementwise:
                stated = jnp.sum(stated)
            expected = jnp.linalg.slogdet(jnp.atleast_2d(jacobian))[1]
            np.testing.assert_allclose(stated, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["low", "high", "signs", "uniform"])
def test_extremes_are_finite_and_strictly_inside(name: str, kind: str) -> None:
    transform, shape = CASES[name][0](), CASES[name][1]
    rng = np.random.default_rng(1)
    x = {
        "low": np.full((6, *shape), -80.0),
        "high": np.full((6, *shape), 80.0),
        "signs": rng.choice([-80.0, 80.0], (6, *shape)),
        "uniform": rng.uniform(-80, 80, (6, *shape)),
    }[kind].astype(np.float32)
    y = np.asarray(transform(jnp.asarray(x)))
    assert np.isfinite(y).all()
    if name.startswith("CovarianceFactor"):
        assert (np.diagonal(y, axis1=-2, axis2=-1) > 0).all()
        assert np.isfinite(y @ np.swapaxes(y, -1, -2)).all()
    elif "Ordered" in name:
        assert (np.diff(y) > 0).all()
        assert name == "Ordered" or (y > 0).all()
    elif name.startswith("Simplex"):
        assert (y > 0).all()
        np.testing.assert_allclose(y.sum(-1), 1, atol=1e-6)
    elif name.startswith("SignedExp"):
        assert (np.sign(y) == np.where(transform.negative, -1, 1)).all()
    else:
        low, high = (getattr(transform.codomain, f"{b}_bound", None) for b in ("lower", "upper"))
        closed = name == "Wrap"
        assert low is None or ((y >= low) if closed else (y > np.float32(low))).all()
        assert high is None or ((y <= high) if closed else (y < np.float32(high))).all()
    assert np.isfinite(transform.log_abs_det_jacobian(jnp.asarray(x), jnp.asarray(y))).all()
    gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(transform(x))))(jnp.asarray(x))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "name", [n for n in NAMES if "Bound" in n or "Interval" in n or "/fl" in n]
)
@pytest.mark.parametrize("x", [-60.0, 60.0])
def test_saturation_keeps_a_derivative_to_return_by(name: str, x: float) -> None:
    transform, shape = CASES[name][0](), CASES[name][1]
    gradient = jax.grad(lambda x: jnp.sum(transform(x)))(jnp.full(shape, x))
    assert np.all(gradient != 0)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", NAMES)
def test_jit_vmap_and_grad(name: str) -> None:
    transform, x = CASES[name][0](), points(name)
    expected = transform(x)
    np.testing.assert_allclose(jax.jit(lambda t, x: t(x))(transform, x), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(transform)(x), expected, rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(transform(x))))(x)
    assert np.isfinite(gradient).all()
    assert np.any(gradient != 0)


@pytest.mark.parametrize("name", NAMES)
def test_pytree_and_equality(name: str) -> None:
    transform = CASES[name][0]()
    leaves, tree = jax.tree.flatten(transform)
    again = jax.tree.unflatten(tree, leaves)
    x = points(name)
    np.testing.assert_array_equal(again(x), transform(x))
    assert again == transform
    assert transform != T.Wrap() or name == "Wrap"
    if leaves and not name.startswith("SignedExp"):
        assert jax.tree.map(lambda leaf: leaf + 0.5, transform) != transform


@pytest.mark.parametrize("name", ["Exp", "Softplus", "Interval"])
def test_agrees_with_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    t = torch.distributions.transforms
    there = {
        "Exp": t.ExpTransform(),
        "Softplus": t.SoftplusTransform(),
        "Interval": t.ComposeTransform([t.SigmoidTransform(), t.AffineTransform(-0.7, 3.0)]),
    }[name]
    x = np.linspace(-8, 8, 33)
    with jax.enable_x64(True):
        here = CASES[name][0]()
        y = np.asarray(here(jnp.asarray(x)))
        log_det = np.asarray(here.log_abs_det_jacobian(jnp.asarray(x), jnp.asarray(y)))
    y_there = there(torch.tensor(x))
    np.testing.assert_allclose(y, y_there.numpy(), rtol=1e-12)
    np.testing.assert_allclose(
        log_det, there.log_abs_det_jacobian(torch.tensor(x), y_there).numpy(), atol=1e-9
    )


@pytest.mark.parametrize("x", [1e-30, 1e-6, 0.3, 5.0, 50.0, 1e4, 1e30])
def test_softplus_inverts_at_every_scale(x: float) -> None:
    y = T.Softplus()(T.Softplus().inv(jnp.float32(x)))
    np.testing.assert_allclose(y, x, rtol=2e-5)


def test_wrap_is_the_identity_within_a_turn_and_never_a_wall() -> None:
    x = jnp.array([-3.1, -1.0, 0.0, 3.1])
    np.testing.assert_array_equal(T.Wrap()(x), x)
    np.testing.assert_allclose(T.Wrap()(x + 4 * jnp.pi), x, atol=2e-6)
    np.testing.assert_array_equal(jax.vmap(jax.grad(T.Wrap()))(x + 2 * jnp.pi), 1)


def test_simplex_prefers_no_corner() -> None:
    np.testing.assert_allclose(V.Simplex()(jnp.zeros(4)), 0.2, rtol=1e-6)
    corner = jnp.array([0.7, 0.1, 0.1, 0.1])
    lengths = [jnp.linalg.norm(V.Simplex().inv(jnp.roll(corner, k))) for k in range(4)]
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


# ---- the registry -------------------------------------------------------------------------------

CONSTRAINTS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "real": (constraints.real, ()),
    "real vector": (constraints.real_vector, (3,)),
    "positive": (constraints.positive, ()),
    "nonnegative": (constraints.nonnegative, ()),
    "softplus positive": (constraints.softplus_positive, ()),
    "unit interval": (constraints.unit_interval, ()),
    "interval(-1, 2)": (constraints.interval(-1.0, 2.0), ()),
    "open interval(-1, 2)": (constraints.open_interval(-1.0, 2.0), ()),
    "greater than(1.5)": (constraints.greater_than(1.5), ()),
    "greater than eq(1.5)": (constraints.greater_than_eq(1.5), ()),
    "less than(1.5)": (constraints.less_than(1.5), ()),
    "less than eq(1.5)": (constraints.less_than_eq(1.5), ()),
    "circular": (constraints.circular, ()),
    "simplex": (constraints.simplex, (2,)),
    "ordered vector": (constraints.ordered_vector, (3,)),
    "positive ordered vector": (constraints.positive_ordered_vector, (3,)),
    "positive definite": (constraints.positive_definite, (6,)),
    "lower cholesky": (constraints.lower_cholesky, (6,)),
    "scaled unit lower cholesky": (constraints.scaled_unit_lower_cholesky, (6,)),
    "corr cholesky": (constraints.corr_cholesky, (3,)),
    "corr matrix": (constraints.corr_matrix, (3,)),
    "zero sum": (constraints.zero_sum(1), (3,)),
    "l 1 ball": (constraints.l1_ball, (3,)),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_every_constraint_has_a_bijection_onto_it(name: str) -> None:
    constraint, shape = CONSTRAINTS[name]
    bijection = bijection_for(constraint)
    x = jnp.asarray(np.random.default_rng(0).normal(0, 0.7, (4, *shape)), jnp.float32)
    y = bijection(x)
    assert np.all(constraint(y))
    np.testing.assert_allclose(bijection.inv(y), x, rtol=1e-3, atol=1e-4)
    for extreme in (-80.0, 80.0):
        assert np.isfinite(bijection(jnp.full(shape, extreme))).all(), extreme


def test_a_constraint_without_bijection_says_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match=r"sphere.*numpyro Transform.*fv\.fixed"):
        bijection_for(constraints.sphere)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraint_names_read_well(name: str) -> None:
    base = {"real vector": "real", "zero sum": "zero sum", "l 1 ball": "l1 ball"}
    assert constraint_name(CONSTRAINTS[name][0]) == base.get(name, name)

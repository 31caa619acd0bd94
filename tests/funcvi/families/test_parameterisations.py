"""What survives pytrees, pickles and copies, and what numpyro forgets."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms as nt

import funcvi as fv
from tests.funcvi.families.test_laws import EVERY_ENTRY, assert_close, case, members

#: numpyro cannot rebuild these from their own leaves.
NO_PYTREE = {"HurdleNegativeBinomial2"}
#: After a pytree, numpyro has only the form that it computes with.
FORGOTTEN = {
    "CirculantNormal/row": "covariance_rfft",
    "CirculantNormal/row, odd": "covariance_rfft",
    "GaussianCopula/matrix": "correlation_cholesky",
    "GaussianCopulaBeta/matrix": "correlation_cholesky",
    "GaussianStateSpace/covariance": "scale_tril",
    "GaussianStateSpace/precision": "scale_tril",
    "InverseWishart/scale_matrix": "scale_tril",
    "InverseWishart/rate_matrix": "scale_tril",
    "InverseWishartCholesky/scale_matrix": "scale_tril",
    "InverseWishartCholesky/rate_matrix": "scale_tril",
    "MultivariateNormal/covariance": "scale_tril",
    "MultivariateNormal/precision": "scale_tril",
    "MultivariateNormal/to_event": "scale_tril",
    "Wishart/scale_matrix": "scale_tril",
    "Wishart/rate_matrix": "scale_tril",
    "WishartCholesky/scale_matrix": "scale_tril",
    "WishartCholesky/rate_matrix": "scale_tril",
    "joint/nested": "scale_tril",
}


@EVERY_ENTRY
def test_a_family_inverts_what_went_through_a_pytree(name: str) -> None:
    d, params, q, _ = case(name)
    if name in NO_PYTREE:
        with pytest.raises(AttributeError, match="has no setter"):
            jax.tree.map(lambda leaf: leaf, d)
        return
    mapped = jax.tree.map(lambda leaf: leaf, d)
    assert_close(q.inverse(mapped), params, 1e-4)
    names, mapped_names = (str(jax.tree.structure(p)) for p in (params, fv.unconstrain(mapped)[0]))
    if name in FORGOTTEN:
        assert f"'{FORGOTTEN[name]}'" in mapped_names
        assert f"'{FORGOTTEN[name]}'" not in names
    else:
        assert mapped_names == names


@EVERY_ENTRY
def test_a_family_is_pickled_and_copied(name: str) -> None:
    _, params, q, _ = case(name)
    for again in (pickle.loads(pickle.dumps(q)), copy.deepcopy(q)):
        assert repr(again) == repr(q)
        made, remade = q(params), again(params)
        assert_close(again.inverse(remade), params, 1e-3)
        assert [type(m) for m in members(made)] == [type(m) for m in members(remade)]


@pytest.mark.parametrize("given", ["covariance_matrix", "precision_matrix", "scale_tril"])
@pytest.mark.parametrize("asked", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_inverse_takes_every_parameterisation(given: str, asked: str) -> None:
    loc, factor = jnp.array([0.2, -0.4]), jnp.array([[0.9, 0.0], [0.3, 1.2]])
    d = dist.MultivariateNormal(loc, scale_tril=factor)
    matrix = {n: getattr(d, n) for n in ("covariance_matrix", "precision_matrix", "scale_tril")}
    d = dist.MultivariateNormal(loc, **{given: matrix[given]})
    q = fv.unconstrain(dist.MultivariateNormal(loc, **{asked: matrix[asked]}))[1]
    assert set(q.inverse(d)) == {"loc", asked}
    np.testing.assert_allclose(q(q.inverse(d)).scale_tril, factor, rtol=1e-4, atol=1e-5)
    # What somebody read in between changes nothing.
    _ = d.covariance_matrix, d.precision_matrix
    assert set(fv.unconstrain(d)[0]) == {"loc", given}
    assert set(fv.unconstrain(d.expand([3]))[0]) == {"loc", given}
    assert set(fv.unconstrain(copy.deepcopy(d))[0]) == {"loc", given}


def test_inverse_under_jit_and_vmap() -> None:
    params, q = fv.unconstrain(
        dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=jnp.array([[2.0, 0.3], [0.3, 1.0]]))
    )
    assert_close(jax.jit(lambda p: q.inverse(q(p)))(params), params, 1e-5)
    assert_close(jax.jit(q.inverse)(jax.jit(q)(params)), params, 1e-5)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), params)
    assert_close(jax.vmap(lambda p: q.inverse(q(p)))(stacked), stacked, 1e-5)


@pytest.mark.parametrize(
    "d",
    [
        dist.Normal(jnp.zeros(3), 1.0),
        dist.Normal(0.0, 1.0),
        dist.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.eye(2)),
        dist.Dirichlet(jnp.ones(3)),
    ],
)
def test_a_distribution_out_of_vmap_is_refused(d: Any) -> None:
    params, q = fv.unconstrain(d)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), params)
    with pytest.raises(ValueError, match=r"jax\.vmap returns keeps the batch shape of one element"):
        q.inverse(jax.vmap(q)(stacked))


# ---- constructors whose arguments were lost -----------------------------------------------------


def test_a_folded_transformed_base_keeps_its_transforms() -> None:
    d = dist.FoldedDistribution(
        dist.TransformedDistribution(dist.Normal(0.4, 1.3), nt.AffineTransform(0.3, 1.7))
    )
    params, q = fv.unconstrain(d)
    key = jax.random.key(0)
    np.testing.assert_allclose(q(params).sample(key, (5,)), d.sample(key, (5,)), rtol=1e-5)


def test_a_state_space_with_a_batch_of_initial_values() -> None:
    d = dist.GaussianStateSpace(
        3, 0.5 * jnp.eye(2), covariance_matrix=jnp.eye(2), initial_value=jnp.ones((4, 2))
    )
    params, q = fv.unconstrain(d)
    assert params["covariance_matrix"].shape == (4, 3)
    x = d.sample(jax.random.key(0))
    np.testing.assert_allclose(q(params).log_prob(x), d.log_prob(x), rtol=1e-5)


def test_a_wishart_with_a_fixed_scale_matrix() -> None:
    q = fv.family(dist.Wishart, scale_matrix=jnp.eye(2))
    d = q({"concentration": 0.0})
    np.testing.assert_allclose(d.concentration, 2.0)
    np.testing.assert_allclose(q.inverse(d)["concentration"], 0.0, atol=1e-6)

"""Every model of the catalogue is numpyro's: its log density, its values, its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcvi as fv
from tests.funcvi.models import ENTRIES, REFUSALS
from tests.funcvi.models.oracles import log_det, log_joint, numpyro_trace

PLACES = 3


@pytest.fixture(params=ENTRIES)
def entry(request):
    """An entry of the catalogue, in float64."""
    with jax.enable_x64(True):
        yield ENTRIES[request.param]


@functools.cache
def target_of(name):
    return fv.target(ENTRIES[name].model, *ENTRIES[name].args, **ENTRIES[name].kwargs)


def places_of(target, seed=0, number=PLACES):
    """Unconstrained sites at random, along a leading axis."""
    rng = np.random.default_rng(seed)
    vectors = jnp.asarray(rng.uniform(-1.5, 1.5, (number, target.size)))
    return jax.vmap(target.unravel)(vectors)


def latents(target, z):
    return {n: x for n, x in target.constrain(z).items() if n in target.shapes}


@pytest.mark.few(8)
def test_the_log_density_is_that_of_numpyro(entry):
    target = target_of(entry.name)

    @jax.jit
    @jax.vmap
    def both(z):
        det = log_det(entry, target, z)
        return (
            target.log_density(z),
            target.log_det(z),
            log_joint(entry, target, latents(target, z)),
            det,
        )

    found, our_det, joint, det = both(places_of(target))
    assert found.dtype == jnp.float64
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(our_det, det, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found, joint + det, rtol=1e-9, atol=1e-9)


@pytest.mark.few(8)
def test_values_are_inside_go_back_and_are_read_as_numpyro_reads_them(entry):
    target = target_of(entry.name)
    (z,) = (jax.tree.map(lambda x: x[0], places_of(target, 1)),)
    values = target.constrain(z)
    back = target.unconstrain(values)
    trace = numpyro_trace(entry, {n: values[n] for n in target.shapes})
    for name, shape in target.value_shapes.items():
        assert values[name].shape == shape
        assert np.all(trace[name]["fn"].support(values[name])), name
        np.testing.assert_allclose(back[name], z[name], rtol=1e-7, atol=1e-7)
    for name, site in trace.items():
        if site["type"] == "deterministic" and name in values:
            np.testing.assert_allclose(values[name], site["value"], rtol=1e-10)
    if not target.summed:
        computed = {n for n, s in trace.items() if s["type"] == "deterministic"}
        assert set(values) == {*target.shapes, *computed}


@pytest.mark.few(8)
def test_gradients_are_differences_of_numpyros_density(entry):
    target = target_of(entry.name)
    z = jax.tree.map(lambda x: x[0], places_of(target, 2))
    vector, step = target.ravel(z), 2e-3
    direction = jnp.asarray(np.random.default_rng(3).normal(size=vector.shape))
    direction /= jnp.linalg.norm(direction)

    def oracle(distance):
        z = target.unravel(vector + distance * direction)
        return log_joint(entry, target, latents(target, z)) + target.log_det(z)

    slope = jax.grad(target.log_density)(z)
    assert all(np.all(np.isfinite(x)) for x in slope.values())
    # The five-point rule: errors of the order of step**4.
    far, near = (jax.jit(jax.vmap(oracle))(h * jnp.array([1.0, -1.0])) for h in (2 * step, step))
    expected = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * step)
    np.testing.assert_allclose(target.ravel(slope) @ direction, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.few(8)
def test_jit_and_vmap_change_nothing(entry):
    target = target_of(entry.name)
    z = places_of(target, 4, 2)
    rows = [jax.tree.map(lambda x, i=i: x[i], z) for i in range(2)]
    eager = [target.log_density(row) for row in rows]
    compiled = jax.jit(target.log_density)
    np.testing.assert_allclose([compiled(row) for row in rows], eager, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(target.log_density)(z), eager, rtol=1e-12)


@pytest.mark.few(8)
@pytest.mark.parametrize("name", ENTRIES)
def test_float32_keeps_its_digits(name):
    entry = ENTRIES[name]
    with jax.enable_x64(True):
        wide = target_of(name)
        z = jax.tree.map(lambda x: np.asarray(x[0], np.float32), places_of(wide, 5))
        expected = wide.log_density({n: jnp.asarray(x, jnp.float64) for n, x in z.items()})
    target = fv.target(entry.model, *entry.args, **entry.kwargs)
    found = target.log_density({n: jnp.asarray(x) for n, x in z.items()})
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_target_is_refused(name):
    refusal = REFUSALS[name]

    def density():
        target = fv.target(refusal.model, *refusal.args, **refusal.kwargs)
        return target.log_density({n: jnp.zeros(s) for n, s in target.shapes.items()})

    with pytest.raises((ValueError, TypeError), match=refusal.message) as refused:
        density()
    assert len(str(refused.value).splitlines()) <= 3

"""Targets against numpyro's potential energy, quadrature and hand-written densities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer.util import potential_energy
from scipy import integrate, stats

import funcvi as fv

KEY = jax.random.key(6)
DATA = jnp.array([1.2, 0.7, 2.5, 1.9])


def regression(x, y=None):
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    weight = numpyro.sample("weight", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    rho = numpyro.sample("rho", dist.Uniform(-1.0, 2.0))
    mean = numpyro.deterministic("mean", x @ weight + rho)
    with numpyro.plate("n", len(x)):
        local = numpyro.sample("local", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean * local, scale), obs=y)
    numpyro.factor("penalty", -jnp.sum(weight**2))


X = jnp.array([[1.0, 0.5], [0.3, -1.0], [0.0, 2.0]])
Y = jnp.array([1.0, 0.2, -0.7])


def test_the_density_equals_numpyros_potential_energy():
    target = fv.target(regression, X, y=Y)
    # numpyro's order and bijections agree for real, positive and interval supports.
    assert dict(target.shapes) == {"scale": (), "weight": (2,), "rho": (), "local": (3,)}
    for seed in range(3):
        keys = jax.random.split(jax.random.key(seed), 4)
        z = {
            n: jax.random.normal(k, s)
            for k, (n, s) in zip(keys, target.shapes.items(), strict=True)
        }
        expected = -potential_energy(regression, (X,), {"y": Y}, z)
        np.testing.assert_allclose(jax.jit(target.log_density)(z), expected, rtol=1e-5)
        slope = jax.grad(target.log_density)(z)
        exact = jax.grad(lambda z: -potential_energy(regression, (X,), {"y": Y}, z))(z)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), slope, exact
        )


def test_constrain_gives_latents_and_deterministic_sites_and_inverts():
    target = fv.target(regression, X, y=Y)
    z = {n: 0.3 * jnp.ones(s) for n, s in target.shapes.items()}
    values = target.constrain(z)
    assert set(values) == {"scale", "weight", "rho", "local", "mean"}
    np.testing.assert_allclose(values["mean"], X @ values["weight"] + values["rho"], rtol=1e-6)
    assert -1.0 < float(values["rho"]) < 2.0
    back = target.unconstrain(values)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), back, z)


def test_numpy_data_and_the_repr():
    target = fv.target(regression, np.asarray(X), y=np.asarray(Y))
    lines = repr(target).splitlines()
    assert lines[0] == "Target with 4 latent site(s)"
    assert "  scale: positive, unconstrained shape ()" in lines
    assert "  rho: interval(-1, 2), unconstrained shape ()" in lines


SUPPORTS = {
    "positive": (dist.Gamma(2.0, 1.0), constraints.positive),
    "real": (dist.StudentT(4.0, 1.0, 2.0), constraints.real),
    "unit interval": (dist.Beta(2.0, 3.0), constraints.unit_interval),
    "interval": (dist.Uniform(-2.0, 3.0), constraints.interval(-2.0, 3.0)),
    "greater than": (dist.TruncatedNormal(0.0, 1.0, low=0.5), constraints.greater_than(0.5)),
    "less than": (dist.TruncatedNormal(0.0, 1.0, high=-0.5), constraints.less_than(-0.5)),
    "simplex": (dist.Dirichlet(jnp.array([2.0, 3.0])), (constraints.simplex, (2,))),
}


@pytest.mark.parametrize("case", SUPPORTS.values(), ids=SUPPORTS)
@pytest.mark.parametrize("kind", ["density", "model"])
def test_a_normalised_density_integrates_to_one_on_unconstrained_space(case, kind):
    d, support = case
    if kind == "density":
        target = fv.target(lambda x: d.log_prob(x["a"]), supports={"a": support})
    else:
        target = fv.target(lambda: numpyro.sample("a", d))
    shape = target.shapes["a"]
    grid = np.linspace(-60.0, 60.0, 24_001)
    density = jax.jit(jax.vmap(lambda u: target.log_density({"a": jnp.reshape(u, shape)})))
    total = integrate.simpson(np.exp(np.asarray(density(jnp.asarray(grid, float)), float)), x=grid)
    # StudentT(4) beyond 60 has mass 2e-5; the others nothing; float32 sums err by 1e-5.
    assert total == pytest.approx(1.0, abs=1e-4)


VECTORS = {
    "simplex": (dist.Dirichlet(jnp.array([2.0, 3.0, 1.5])), 2),
    "ordered": (
        dist.TransformedDistribution(
            dist.Normal(0.0, 1.0).expand([2]).to_event(1), dist.transforms.OrderedTransform()
        ),
        2,
    ),
    "correlation": (dist.LKJCholesky(2, 2.0), 1),
    "positive vector": (dist.Gamma(2.0, jnp.ones(2)).to_event(1), 2),
}


@pytest.mark.parametrize("case", VECTORS.values(), ids=VECTORS)
def test_vector_supports_round_trip_and_integrate_to_one(case):
    d, dimension = case
    target = fv.target(lambda: numpyro.sample("a", d))
    assert int(np.prod(target.shapes["a"])) == dimension
    x = d.sample(KEY)
    z = target.unconstrain({"a": x})
    np.testing.assert_allclose(target.constrain(z)["a"], x, rtol=1e-4, atol=1e-5)
    # Importance sampling from a wide normal: the mean of the ratios is one within its error.
    proposal = dist.Normal(0.0, 2.5).expand(target.shapes["a"]).to_event(1)
    u = proposal.sample(KEY, (100_000,))
    density = jax.jit(jax.vmap(lambda u: target.log_density({"a": u})))
    ratios = np.exp(np.asarray(density(u) - proposal.log_prob(u), float))
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / np.sqrt(len(ratios))
    assert ratios.std() / np.sqrt(len(ratios)) < 0.02


def test_a_support_that_depends_on_another_latent():
    def model():
        high = numpyro.sample("high", dist.Gamma(3.0, 1.0))
        numpyro.sample("x", dist.Uniform(0.0, high))

    target = fv.target(model)
    z = {"high": jnp.array(0.7), "x": jnp.array(-0.4)}
    values = target.constrain(z)
    high, share = np.exp(0.7), 1 / (1 + np.exp(0.4))
    np.testing.assert_allclose(values["x"], high * share, rtol=1e-5)
    exact = stats.gamma.logpdf(high, 3.0) + 0.7 - np.log(high)
    exact += np.log(high * share * (1 - share))
    np.testing.assert_allclose(target.log_density(z), exact, rtol=1e-5)
    back = target.unconstrain(values)
    np.testing.assert_allclose([back["high"], back["x"]], [0.7, -0.4], rtol=1e-4)


def test_masks_leave_observations_out():
    mask = jnp.array([True, False, True, True])

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean, 1.0).mask(mask), obs=y)

    target = fv.target(model, DATA)
    exact = stats.norm.logpdf(0.4) + stats.norm.logpdf(np.asarray(DATA)[mask], 0.4).sum()
    np.testing.assert_allclose(target.log_density({"mean": jnp.array(0.4)}), exact, rtol=1e-5)


def test_subsampling_is_unbiased_over_keys_and_fixed_without_one():
    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", len(y), subsample_size=2):
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=numpyro.subsample(y, 0))

    target = fv.target(model, DATA)
    z = {"mean": jnp.array(0.4)}
    keys = jax.random.split(KEY, 2000)
    found = np.asarray(jax.jit(jax.vmap(target.log_density, (None, 0)))(z, keys), float)
    exact = stats.norm.logpdf(0.4) + stats.norm.logpdf(np.asarray(DATA), 0.4).sum()
    assert found.std() > 0.1
    assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(len(found))
    assert target.log_density(z) == target.log_density(z)


def test_shapes_of_supports():
    target = fv.target(
        lambda x: -jnp.sum(x["w"] ** 2) + jnp.sum(jnp.log(x["p"])),
        supports={"w": (constraints.positive, (2, 3)), "p": (constraints.simplex, (4, 3))},
    )
    assert dict(target.shapes) == {"w": (2, 3), "p": (4, 2)}
    values = target.constrain({n: jnp.zeros(s) for n, s in target.shapes.items()})
    np.testing.assert_allclose(values["p"], jnp.full((4, 3), 1 / 3), rtol=1e-5)


# ---- errors --------------------------------------------------------------------------------------


def with_discrete():
    numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("k", dist.Poisson(2.0))


def without_latents():
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=1.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            with_discrete,
            "latent site 'k' is discrete (Poisson) without a few single values",
        ),
        (without_latents, "no latent sites: there is nothing to infer"),
        (lambda: numpyro.sample("d", dist.Delta(0.0)), "latent site 'd' is a Delta"),
    ],
)
def test_models_that_are_no_targets(model, message):
    with pytest.raises(ValueError, match=r".+") as refused:
        fv.target(model)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("supports", "kind", "message"),
    [
        ({}, ValueError, "supports is empty"),
        ({"a": 1.0}, TypeError, "supports['a'] must be a constraint or (constraint, shape)"),
        ({"a": (constraints.real, 3)}, TypeError, "with a tuple for a shape"),
        ({"a": constraints.boolean}, TypeError, "supports['a'] is boolean: give a continuous"),
        ({"a": constraints.dependent}, TypeError, "supports['a'] is dependent"),
        ({"a": constraints.simplex}, ValueError, "its shape is (): write (constraint, shape)"),
    ],
)
def test_supports_that_are_none(supports, kind, message):
    with pytest.raises(kind) as refused:
        fv.target(lambda x: 0.0, supports=supports)
    assert message in str(refused.value)


def test_what_is_no_model():
    with pytest.raises(TypeError, match="model must be a function, got float"):
        fv.target(1.0)
    with pytest.raises(TypeError, match="close over its data"):
        fv.target(lambda x: 0.0, DATA, supports={"a": constraints.real})


@pytest.mark.parametrize(
    "target",
    [
        fv.target(regression, X, y=Y),
        fv.target(lambda x: 0.0, supports={"a": constraints.real, "scale": constraints.real}),
    ],
    ids=["model", "density"],
)
def test_missing_sites_and_wrong_shapes_are_named(target):
    # A site left out would be drawn from its prior in silence.
    z = {n: jnp.zeros(s) for n, s in target.shapes.items()}
    partial = {n: v for n, v in z.items() if n != "scale"}
    for function in (target.log_density, target.constrain, target.unconstrain):
        with pytest.raises(ValueError, match=r"values are missing for \['scale'\]"):
            function(partial)
    # A scalar site given five values would be summed over them.
    with pytest.raises(ValueError, match=r"'scale' must have shape \(\), got \(5,\)"):
        target.log_density({**z, "scale": jnp.zeros(5)})


def test_a_density_that_is_no_scalar():
    target = fv.target(lambda x: x["a"], supports={"a": (constraints.real, (3,))})
    with pytest.raises(ValueError, match=r"must return a scalar, got shape \(3,\): sum it"):
        target.log_density({"a": jnp.zeros(3)})


ATOMS = {
    "mixture": lambda: dist.MixtureGeneral(
        dist.Categorical(probs=jnp.ones(2) / 2),
        [dist.Normal(), dist.Delta(0.0)],
        support=dist.constraints.real,
    )
}
if hasattr(dist, "HurdleGamma"):  # numpyro 0.21 has none
    ATOMS["hurdle"] = lambda: dist.HurdleGamma(0.3, 2.0, 1.0)
    ATOMS["hurdles"] = lambda: dist.HurdleGamma(0.3, jnp.ones(2), 1.0).to_event(1)


@pytest.mark.parametrize("name", ATOMS)
def test_a_latent_with_an_atom_is_refused(name):
    """Its density alone is not its posterior: zero has a probability of its own."""

    def model():
        z = numpyro.sample("z", ATOMS[name]())
        numpyro.sample("y", dist.Normal(jnp.sum(z), 1.0), obs=0.5)

    with pytest.raises(ValueError, match=r"'z' is a .* gives single values a probability"):
        fv.target(model)

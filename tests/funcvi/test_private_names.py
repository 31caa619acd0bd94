"""What funcvi takes from private names of JAX and numpyro does what it is used for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import cond, scan
from numpyro.distributions import constraints, transforms
from numpyro.primitives import Messenger

from funcvi import _jax, _numpyro

# ---- numpyro -------------------------------------------------------------------------------------


def test_attributes_that_keep_arguments() -> None:
    masked = dist.MaskedDistribution(dist.Normal(0.0, jnp.ones(2)), jnp.array([True, False]))
    assert getattr(masked, _numpyro.MASK).tolist() == [True, False]
    mixture = dist.MixtureGeneral(
        dist.Categorical(jnp.full(2, 0.5)),
        [dist.HalfNormal(1.0), dist.Gamma(1.0)],
        support=constraints.positive,
    )
    assert getattr(mixture, _numpyro.SUPPORT) is constraints.positive
    assert isinstance(mixture, _numpyro.Mixture)
    walk = dist.GaussianStateSpace(
        3,
        jnp.eye(2),
        scale_tril=jnp.eye(2),
        initial_value=jnp.array([1.0, 2.0]),
    )
    assert getattr(walk, _numpyro.INITIAL_VALUE).tolist() == [1.0, 2.0]


def test_masks_as_arrays_and_as_flags() -> None:
    d = dist.Normal(0.0, jnp.ones(2))
    assert _numpyro.mask_of(dist.MaskedDistribution(d, True)) is True
    assert _numpyro.mask_of(d.mask(jnp.array([True, False]))).tolist() == [True, False]


def test_an_inverse_knows_itself() -> None:
    inverse = transforms.ExpTransform().inv
    assert isinstance(inverse, _numpyro.InverseTransform)
    assert isinstance(inverse.inv, transforms.ExpTransform)


def test_batches_of_factors_are_known() -> None:
    factors = jnp.broadcast_to(jnp.eye(2), (3, 2, 2))
    if _numpyro.BATCHED_AFFINE:
        affine = transforms.LowerCholeskyAffine(jnp.zeros(2), factors)
        assert affine(jnp.ones((3, 2))).shape == (3, 2)
    else:
        with pytest.raises(ValueError, match="2-dimensional"):
            transforms.LowerCholeskyAffine(jnp.zeros(2), factors)


def test_a_scan_tells_what_it_draws_and_hands_out_its_steps() -> None:
    class Spy(Messenger):
        steps: list[dict[str, Any]]

        def process_message(self, msg: Any) -> None:
            if msg["type"] == "control_flow":
                msg["kwargs"]["substitute_stack"].append(("substitute", {"x": jnp.arange(3.0)}))
                msg["kwargs"]["substitute_stack"].append(("substitute", value))

        def postprocess_message(self, msg: Any) -> None:
            if msg["type"] == "control_flow":
                assert _numpyro.is_scan(msg)
                assert _numpyro.scanned_sites(msg) == {"x", "w"}
                body = _numpyro.scan_step(msg, msg["args"][0], 2, jax.random.key(0))
                with numpyro.handlers.block(), numpyro.handlers.trace() as trace:
                    body(0.0, None)
                assert trace["x"]["infer"][_numpyro.SCAN_INDEX] == 2
                assert trace["x"]["infer"][_numpyro.ALL_VALUES]
                self.steps = [{n: float(s["value"]) for n, s in trace.items()}]

    def value(site: Any) -> Any:
        return jnp.array(7.0) if site["name"] == "w" else None

    def body(carry: Any, _: Any) -> Any:
        numpyro.sample("w", dist.Normal(0.0, 1.0))
        return numpyro.sample("x", dist.Normal(0.0, 1.0)), None

    spy = Spy(numpyro.handlers.seed(lambda: scan(body, 0.0, None, length=3), 0))
    spy()
    assert spy.steps == [{"w": 7.0, "x": 2.0}]


def test_a_scan_tells_its_direction_its_length_and_its_step() -> None:
    messages, steps = [], []

    def note(site: dict[str, Any]) -> None:
        steps.append(site["infer"].get(_numpyro.SCAN_INDEX))

    class Look(Messenger):
        def process_message(self, msg: dict[str, Any]) -> None:
            if msg["type"] == "control_flow":
                messages.append(msg)
                stack = msg["kwargs"]["substitute_stack"]
                stack.append(
                    ("substitute", lambda s: steps.append(s["infer"].get(_numpyro.SCAN_INDEX)))
                )

    def step(carry: Any, x: Any) -> Any:
        return numpyro.sample("z", dist.Normal(carry, 1.0)), None

    def model() -> None:
        scan(step, 0.0, jnp.zeros(3), reverse=True)
        with numpyro.handlers.scope(prefix="two"):
            scan(step, 0.0, None, length=2)
        cond(True, lambda _: 1.0, lambda _: 2.0, None)

    with Look(), numpyro.handlers.seed(rng_seed=0):
        model()
    assert [_numpyro.runs_backwards(m) for m in messages] == [True, False, False]
    assert [_numpyro.scan_length(m) for m in messages] == [3, 2, None]
    assert steps
    assert all(step is not None and step.shape == () for step in steps)


def test_gates() -> None:
    gated = dist.ZeroInflatedDistribution(dist.Poisson(1.0), gate=0.5)
    by_logits = dist.ZeroInflatedDistribution(dist.Poisson(1.0), gate_logits=0.0)
    assert isinstance(gated, _numpyro.GATED)
    assert isinstance(by_logits, _numpyro.GATED)
    assert not isinstance(dist.Poisson(1.0), _numpyro.GATED)


def test_classes_that_a_version_lacks_are_left_out() -> None:
    assert _numpyro.named("Normal", "NoSuchDistribution") == (dist.Normal,)


def test_what_a_constructor_was_given_is_stored_first() -> None:
    names = ("covariance_matrix", "precision_matrix", "scale_tril")
    for name in names:
        d = dist.MultivariateNormal(jnp.zeros(2), **{name: jnp.eye(2)})
        _ = d.covariance_matrix, d.precision_matrix
        assert _numpyro.first_stored(d, names) == name


def test_checks_of_values_are_taken_off_all_the_way_down() -> None:
    inner = dist.Gamma(1.0, validate_args=True)
    d = dist.TransformedDistribution(inner, transforms.ExpTransform(), validate_args=True)
    free = _numpyro.unvalidated(d)
    assert not free._validate_args
    assert not free.base_dist._validate_args
    assert inner._validate_args


# ---- JAX -----------------------------------------------------------------------------------------


def test_values_are_told_from_tracers() -> None:
    seen = []
    jax.jit(lambda x: seen.append(_jax.is_concrete({"x": x})))(1.0)
    assert seen == [False]
    assert _jax.is_concrete({"x": jnp.ones(2), "y": 1})


@pytest.mark.parametrize(
    ("function", "expected"),
    [(jnp.sin, True), (lambda x: x + x, True), (jnp.cumsum, False), (jnp.sort, False)],
)
def test_elementwise_primitives(function, expected) -> None:
    equations = jax.make_jaxpr(function)(jnp.ones(3)).jaxpr.eqns
    assert _jax.is_elementwise(equations[-1].primitive) is expected


def test_what_an_output_reads() -> None:
    jaxpr = jax.make_jaxpr(lambda x, y, z: (x + y, z))(1.0, 2.0, 3.0).jaxpr
    assert _jax.read_inputs(jaxpr, [True, False]) == [True, True, False]
    part, is_read = _jax.part_of(jaxpr, [False, True])
    assert is_read == [False, False, True]
    assert not part.eqns


def test_traces_of_the_users_functions_are_forgotten_and_frozen_ones_kept() -> None:
    traced = []

    def own(x):
        traced.append("own")
        return x * 2

    @_jax.frozen
    def steady(x):
        traced.append("steady")
        return x * 3

    def both(x):
        return jax.checkpoint(own)(x) + jax.checkpoint(steady)(x)

    for _ in range(2):
        jax.make_jaxpr(both)(1.0)
    first = list(traced)
    _jax.forget_traces()
    jax.make_jaxpr(both)(1.0)
    assert sorted(traced[len(first) :]) == ["own"]


def test_reductions_are_traced_anew() -> None:
    traced = []

    def add(x, y):
        traced.append(1)
        return x + y

    def total(x):
        return jax.lax.reduce(x, jnp.float32(0), add, (0,))

    total(jnp.ones(2))
    count = len(traced)
    _jax.forget_reductions()
    total(jnp.ones(2))
    assert len(traced) > count

"""A stack of a flowjax guide's params is a batch of posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcvi as fv
from tests.funcvi.guide_catalogue import CORRELATED, KEY

flows = pytest.importorskip("flowjax.flows", reason="flowjax is not installed")
bijections = pytest.importorskip("flowjax.bijections")
distributions = pytest.importorskip("flowjax.distributions")


@pytest.mark.slow
def test_a_stack_of_params_is_a_batch_of_posteriors():
    flow = flows.coupling_flow(
        KEY,
        base_dist=distributions.StandardNormal((3,)),
        transformer=bijections.Affine(),
        flow_layers=2,
        nn_width=4,
        nn_depth=1,
    )
    guide = fv.guide(CORRELATED, flow)
    params = jax.vmap(guide.init)(jax.random.split(KEY, 2))
    posterior = guide(params)
    values, log_q = jax.jit(lambda p: p.sample_and_log_prob(KEY, (5,)))(posterior)
    assert log_q.shape == (5, 2)
    assert fv.sample(posterior, KEY, (5,))["pair"].shape[:2] == (5, 2)
    np.testing.assert_allclose(posterior.log_prob(values), log_q, rtol=1e-3, atol=1e-3)
    for i in range(2):
        one = guide(jax.tree.map(lambda x: x[i], params))  # noqa: B023
        each = {n: x[:, i] for n, x in values.items()}
        np.testing.assert_allclose(one.log_prob(each), log_q[:, i], rtol=1e-3, atol=1e-3)
    twice = guide(jax.tree.map(lambda x: jnp.stack([x, x, x]), params))
    assert fv.sample(twice, KEY, (5,))["pair"].shape[:3] == (5, 3, 2)

"""What fv.diagnose says of good and bad posteriors, and whether it says so for every key."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.diagnostics import Verdict, _verdict
from funcvi.pareto import tail_of
from tests.funcvi.test_pareto import TAILS

KEY = jax.random.key(8)


def normal_target(scale=1.0, log_evidence=0.0):
    return fv.target(
        lambda x: dist.Normal(2.0, scale).log_prob(x["a"]) + log_evidence,
        supports={"a": constraints.real},
    )


def posterior(target, loc, scale):
    guide = fv.mean_field(target)
    return guide(guide.family.inverse({"a": dist.Normal(loc, scale)}))


def test_an_exact_posterior_has_the_log_evidence_without_error():
    target = normal_target(log_evidence=-3.5)
    found = fv.diagnose(posterior(target, 2.0, 1.0), key=KEY)
    assert found.elbo == pytest.approx(-3.5, abs=1e-5)
    assert found.elbo_standard_error < 1e-6
    assert found.reliable
    assert found.message.startswith("good;")
    first = str(found).splitlines()[0]
    assert re.fullmatch(r"ELBO   -3.50 \+- \d.\de-\d+ nats \(4000 draws\)", first)


def test_the_elbo_and_its_error():
    target = normal_target()
    found = fv.diagnose(posterior(target, 2.5, 0.8), key=KEY, num_samples=10_000)
    exact = -float(fv.kl(dist.Normal(2.5, 0.8), dist.Normal(2.0, 1.0)))
    assert abs(found.elbo - exact) < 5 * found.elbo_standard_error
    # log p - log q = (z^2 - (0.8 z + 0.5)^2) / 2 + constant with z standard normal.
    spread = np.sqrt((0.36 / 2) ** 2 * 2 + 0.4**2)
    assert found.elbo_standard_error == pytest.approx(spread / 100, rel=0.05)


# p / q of two centred normals has the tail of a Pareto with k = 1 - (scale of q / scale of p)^2.
@pytest.mark.parametrize(
    ("loc", "scale", "verdict"),
    [
        (2.0, 1.2, "good"),
        (2.0, 0.9, "good"),
        (2.0, 0.7, "undecided"),  # k = 0.51, and 4000 draws tell it to 0.11
        (0.0, 0.4, "unreliable"),
    ],
)
def test_the_verdict_on_a_normal(loc, scale, verdict):
    found = fv.diagnose(posterior(normal_target(), loc, scale), key=KEY)
    assert found.verdict == verdict
    assert found.reliable == (verdict == "good")
    assert found.message.startswith(verdict)
    if loc == 2.0 and scale < 1:
        assert found.k_hat == pytest.approx(1 - scale**2, abs=4 * found.k_hat_standard_error)
    shown = f"k-hat  {found.k_hat:.2f} +- {found.k_hat_standard_error:.2f}: {verdict}"
    assert shown in str(found)


def test_undecided_says_how_many_draws_would_decide():
    q = posterior(normal_target(), 2.0, 0.7)
    message = fv.diagnose(q, key=KEY).message
    assert message.startswith("undecided; the threshold 0.70 is within its error.")
    draws = int(message.split("num_samples=")[1].split()[0])
    assert 4000 < draws < 1_000_000
    assert fv.diagnose(q, key=jax.random.key(1), num_samples=200_000).verdict == "usable"


RELIABLE, NOT = {Verdict.good, Verdict.usable}, {Verdict.unreliable, Verdict.wrong}


@pytest.mark.parametrize("n", [500, 4000])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("k", [0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5])
def test_verdicts_on_a_known_tail_hold_over_keys(k, tail, n):
    rng = np.random.default_rng(5)
    verdicts = [_verdict(tail_of(TAILS[tail](rng, k, n)), n) for _ in range(400)]
    threshold = min(1 - 1 / np.log10(n), 0.7)
    on = np.array([v in RELIABLE for v in verdicts]), np.array([v in NOT for v in verdicts])
    # At most one in a hundred is on the wrong side: 4 of 400, within 3.5 standard errors 11.
    wrong_side = on[0] if k > threshold else on[1]
    assert wrong_side.sum() <= 11
    assert not (on[0][:40].any() and on[1][:40].any())  # no two of forty keys contradict
    for bound, verdict in ((0.5, Verdict.good), (1.0, Verdict.wrong)):
        if (k - bound) * (1 if verdict == Verdict.good else -1) >= 0:
            assert verdicts.count(verdict) <= 11


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("loc", "scale"), [(0.8, 0.6), (2.0, 0.7), (2.0, 0.3), (0.0, 0.5), (-1.0, 0.4)]
)
def test_no_two_keys_contradict_each_other(loc, scale):
    q = posterior(normal_target(), loc, scale)
    found = {fv.diagnose(q, key=key).verdict for key in jax.random.split(KEY, 40)}
    assert not (found & RELIABLE and found & NOT)


def test_a_posterior_elsewhere_is_wrong():
    target = normal_target()
    found = fv.diagnose(posterior(target, -3.0, 0.3), key=KEY)
    assert found.k_hat > 1
    assert not found.reliable
    assert found.message.startswith("wrong; the posterior misses much of the target's mass")


def test_a_posterior_that_leaves_the_target_says_so():
    target = fv.target(
        lambda x: jnp.where(x["a"] > 0, -x["a"], -jnp.inf), supports={"a": constraints.real}
    )
    found = fv.diagnose(posterior(target, 0.0, 1.0), key=KEY, num_samples=1000)
    assert not found.reliable
    assert found.elbo == -np.inf
    assert "of 1000 draws have a non-finite log density" in found.message
    count = int(found.message.split()[0])
    assert 400 < count < 600  # half of them, within six standard errors


def test_the_threshold_depends_on_the_number_of_draws():
    # 1 - 1 / log10(1000) = 0.667, below 0.7.
    target = normal_target()
    message = fv.diagnose(posterior(target, -1.0, 0.3), key=KEY, num_samples=1000).message
    assert "unreliable (above 0.67)" in message


def test_too_few_draws_are_refused():
    target = normal_target()
    with pytest.raises(ValueError, match="at least 100 draws, got num_samples=50"):
        fv.diagnose(posterior(target, 2.0, 1.0), key=KEY, num_samples=50)

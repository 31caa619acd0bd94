import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as f

from interop import to_jax
from tests.interop.aten.layer_cases import Batch, Case, Wrapped, draw

KINKS = torch.tensor([-6, -3, -2, -1, -0.5, -0.0, 0.0, 0.5, 1, 2, 3, 6, 19.9, 20.1, 40, -40])
FAR = torch.tensor([-1e4, -100, 100.0, 1e4])

ROUNDED = ("celu", "hardsigmoid")  # torch's slopes of these have single precision in double

CASES = [
    Case(name, function, (values,), tolerance=1e-8 if name in ROUNDED else 1e-10)
    for name, function in {
        "relu": f.relu,
        "relu6": f.relu6,
        "hardtanh": f.hardtanh,
        "hardtanh bounds": lambda x: f.hardtanh(x, -0.5, 2),
        "leaky_relu": f.leaky_relu,
        "leaky_relu negative": lambda x: f.leaky_relu(x, -0.3),
        "elu": lambda x: f.elu(x, 0.7),
        "celu": lambda x: f.celu(x, 1.3),
        "selu": f.selu,
        "gelu": f.gelu,
        "gelu tanh": lambda x: f.gelu(x, approximate="tanh"),
        "silu": f.silu,
        "mish": f.mish,
        "softplus": f.softplus,
        "softplus beta": lambda x: f.softplus(x, 2.0, 6),
        "logsigmoid": f.logsigmoid,
        "hardshrink": f.hardshrink,
        "hardshrink 1": lambda x: f.hardshrink(x, 1),
        "softshrink": f.softshrink,
        "hardsigmoid": f.hardsigmoid,
        "hardswish": f.hardswish,
        "threshold": lambda x: f.threshold(x, 0.5, 7),
        "softsign": f.softsign,
        "tanhshrink": f.tanhshrink,
        "rrelu": f.rrelu,
        "softmin": lambda x: f.softmin(x, 0),
    }.items()
    for values in (KINKS, FAR)
]
X = draw(3, 4, 6)
CASES += [
    Case("prelu", f.prelu, (X, draw(4))),
    Case("prelu one", f.prelu, (torch.cat([KINKS, -KINKS]), draw(1))),
    Case("prelu row", f.prelu, (X[0, 0], draw(1))),
    Case("glu", lambda x: f.glu(x, 1), (X,)),
    Case("softmax", lambda x: f.softmax(x, 1), (X,)),
    Case("softmax number", lambda x: f.softmax(x.sum(), 0)[None], (X,)),
    Case("log_softmax", lambda x: f.log_softmax(x, -2), (X,)),
    Case("softmax dtype", lambda x: f.softmax(x.half(), -1, dtype=torch.float64).to(x.dtype), (X,)),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("activations")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


@pytest.mark.parametrize(
    "function", [f.gelu, f.silu, f.elu, f.mish, f.softplus, f.hardswish, f.hardtanh, f.hardsigmoid]
)
def test_bfloat16_rounds_once(function):
    x = draw(200).bfloat16() * 3
    found = to_jax(Wrapped(function))({}, jnp.asarray(x.float().numpy(), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), function(x).float(), rtol=8e-3, atol=1e-6)


def test_nan_stays():
    x = torch.tensor([float("nan")])
    for function in (f.relu, f.hardtanh, f.softshrink, f.hardshrink, f.leaky_relu, f.elu, f.gelu):
        assert np.isnan(to_jax(Wrapped(function))({}, jnp.asarray(x.numpy())))[0], function


def test_random_slopes_lie_between_their_bounds():
    net = to_jax(torch.nn.RReLU(0.2, 0.4))
    x = jnp.asarray(draw(4000).numpy())
    found = jax.jit(lambda x: net.train({}, x, key=jax.random.key(1))[0])(x)
    slopes = (found / x)[x < 0]
    assert jnp.all(found[x >= 0] == x[x >= 0])
    assert 0.2 <= slopes.min() < 0.21
    assert 0.39 < slopes.max() <= 0.4
    assert abs(slopes.mean() - 0.3) < 0.01

"""Twenty SGD steps in torch and in JAX from the same weights on the same batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import interop
from tests.interop.models import Recurrent, mlp, resnet

STEPS, BATCH = 20, 16  # and a rate at which float32 does not flip a relu

# name: (module, shape of one input)
MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "MLP": (lambda: mlp(12, 32), (12,)),
    "ResNet": (lambda: resnet(3, 8), (3, 16, 16)),
    "two-layer LSTM": (lambda: Recurrent(6, 16), (9, 6)),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_training_ends_where_torch_ends(name: str, wide: bool) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    dtype = torch.float64 if wide else torch.float32
    module = make().to(dtype).train()
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((STEPS, BATCH, *shape)).astype(np.float64 if wide else np.float32)
    ys = rng.integers(0, 10, (STEPS, BATCH))

    with jax.enable_x64(wide):
        net = interop.to_jax(module)
        optimizer = optax.sgd(0.01, momentum=0.9)

        def loss(params: Any, buffers: Any, x: Any, y: Any) -> Any:
            logits, buffers = net.train(params, x, buffers=buffers)
            entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return entropy.mean(), buffers

        def step(state: Any, batch: Any) -> Any:
            params, buffers, momentum = state
            slopes, buffers = jax.grad(loss, has_aux=True)(params, buffers, *batch)
            updates, momentum = optimizer.update(slopes, momentum)
            return (optax.apply_updates(params, updates), buffers, momentum), None

        start = (net.params, net.buffers, optimizer.init(net.params))
        batches = (jnp.asarray(xs), jnp.asarray(ys, jnp.int64 if wide else jnp.int32))
        (params, buffers, _), _ = jax.jit(lambda s, b: jax.lax.scan(step, s, b))(start, batches)

        sgd = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
        for x, y in zip(xs, ys, strict=True):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(
                module(torch.from_numpy(x)), torch.from_numpy(y)
            ).backward()
            sgd.step()

        tolerance = 1e-10 if wide else 1e-5
        for key, tensor in module.state_dict().items():
            found = {**params, **buffers}[key]
            scale = float(tensor.abs().max())
            worst = float(np.abs(np.asarray(found) - tensor.numpy()).max())
            assert worst <= tolerance * scale, f"{key}: {worst / scale:.2g}"

        fresh = interop.load_into(make().to(dtype), params, buffers).eval()
        x = torch.from_numpy(xs[0])
        np.testing.assert_allclose(
            fresh(x).detach(), module.eval()(x).detach(), rtol=1e-3, atol=1e-4
        )
        if net.buffers:
            with pytest.raises(ValueError, match="go with these params: pass those that training"):
                net.state_dict(params)
        held = {k: np.asarray(v) for k, v in net.state_dict(params, buffers).items()}
        for key, tensor in fresh.state_dict().items():
            np.testing.assert_array_equal(tensor.numpy(), held[key])

import pytest
import torch
from torch.nn import functional as f

from tests.interop.aten.layer_cases import Batch, Case, draw, integers

X1, X2, X3 = draw(2, 3, 11), draw(2, 3, 9, 8), draw(1, 2, 5, 6, 7)
TIED = integers(0, 3, 2, 3, 9, 8).float()
TIED3 = integers(0, 2, 1, 2, 5, 6, 7).float()


def _unpooled(x):
    values, where = f.max_pool2d(x, 2, return_indices=True)
    return f.max_unpool2d(values, where, 2, output_size=x.shape[-2:])


CASES = [
    Case("max 1d", lambda x: f.max_pool1d(x, 3, 2, 1, return_indices=True), (X1,)),
    Case("max 1d alone", lambda x: f.max_pool1d(x, 3, 2, 1), (X1,)),
    Case("max 1d dilated", lambda x: f.max_pool1d(x, 3, 1, 1, 2, return_indices=True), (X1,)),
    Case("max 1d ceil", lambda x: f.max_pool1d(x, 4, 3, 2, ceil_mode=True), (X1,)),
    Case("max 1d long window", lambda x: f.max_pool1d(x.repeat(1, 1, 2), 18, 2, 9), (X1,)),
    Case("max 2d ties", lambda x: f.max_pool2d(x, 3, 2, 1, return_indices=True), (TIED,)),
    Case("max 2d overlapping", lambda x: f.max_pool2d(x, (3, 2), (1, 2), (1, 0)), (TIED,)),
    Case("max 2d ceil", lambda x: f.max_pool2d(x, 3, 2, 1, 1, True, True), (TIED,)),
    Case("max 2d all dilated", lambda x: f.max_pool2d(x, 2, 2, 1, (2, 3)), (TIED,)),
    Case("max 2d no batch", lambda x: f.max_pool2d(x, 2, return_indices=True), (TIED[0],)),
    Case("max 3d ties", lambda x: f.max_pool3d(x, 2, 2, 1, return_indices=True), (TIED3,)),
    Case("max 3d alone", lambda x: f.max_pool3d(x, 3, (1, 2, 2)), (TIED3,)),
    Case("unpooled", _unpooled, (X2,)),
    Case("avg 1d", lambda x: f.avg_pool1d(x, 4, 3, 2, True), (X1,)),
    Case("avg 1d inside", lambda x: f.avg_pool1d(x, 4, 3, 2, True, False), (X1,)),
    Case("avg 2d", lambda x: f.avg_pool2d(x, (3, 2), (2, 3), (1, 0)), (X2,)),
    Case("avg 2d ceil", lambda x: f.avg_pool2d(x, 3, 2, 1, True, True), (X2,)),
    Case("avg 2d ceil inside", lambda x: f.avg_pool2d(x, 3, 2, 1, True, False), (X2,)),
    Case("avg 2d divided", lambda x: f.avg_pool2d(x, 3, 2, 1, True, False, 7), (X2,)),
    Case("avg 2d gaps", lambda x: f.avg_pool2d(x, 2, 4), (X2,)),
    Case("avg 3d", lambda x: f.avg_pool3d(x, 2, 2, 1, True, False), (X3,)),
    Case("avg no batch", lambda x: f.avg_pool2d(x, 2), (X2[0],)),
    Case("adaptive avg 1d", lambda x: f.adaptive_avg_pool1d(x, 4), (X1,)),
    Case("adaptive avg 2d", lambda x: f.adaptive_avg_pool2d(x, (3, 5)), (X2,)),
    Case("adaptive avg one", lambda x: f.adaptive_avg_pool2d(x, 1), (X2,)),
    Case("adaptive avg more", lambda x: f.adaptive_avg_pool2d(x, (12, 4)), (X2,)),
    Case("adaptive avg 3d", lambda x: f.adaptive_avg_pool3d(x, (None, 4, 3)), (X3,)),
    Case("adaptive max 1d", lambda x: f.adaptive_max_pool1d(x, 4, True), (X1,)),
    Case("adaptive max 2d", lambda x: f.adaptive_max_pool2d(x, (4, 5), True), (TIED,)),
    Case("adaptive max 3d", lambda x: f.adaptive_max_pool3d(x, (2, 4, 3), True), (TIED3,)),
    Case(
        "fractional 2d",
        lambda x, r: f.fractional_max_pool2d(
            x, (2, 3), (4, 3), return_indices=True, _random_samples=r.detach()
        ),
        (TIED, draw(2, 3, 2).sigmoid()),
    ),
    Case(
        "fractional 3d",
        lambda x, r: f.fractional_max_pool3d(
            x, 2, (3, 4, 2), return_indices=True, _random_samples=r.detach()
        ),
        (TIED3, draw(1, 2, 3).sigmoid()),
    ),
    Case("power", lambda x: f.lp_pool2d(x, 3, 2, 2), (X2,)),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("pooling")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


def test_fractional_pooling_draws_its_windows_from_the_key():
    import jax
    import jax.numpy as jnp

    from interop import to_jax

    net = to_jax(torch.nn.FractionalMaxPool2d(2, output_size=5))
    x = jnp.asarray(draw(2, 3, 16, 16).numpy())
    one, other = (net({}, x, key=jax.random.key(i)) for i in (0, 1))
    assert one.shape == (2, 3, 5, 5)
    assert jnp.any(one != other)
    assert jnp.all(jnp.isin(one, x))

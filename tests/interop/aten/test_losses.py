import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as f

from interop import to_jax
from tests.interop.aten.layer_cases import Batch, Case, Wrapped, draw, integers

X, Y = draw(4, 5), draw(4, 5, seed=1)
STEPS = torch.tensor([-2, -1, -0.5, 0, 0.5, 1, 2.0])
ZERO = torch.zeros(7)
LABELS = torch.tensor([1, 0, 4, -100])
SIGNS = torch.tensor([1.0, -1, 1, -1])
PIXELS = integers(0, 3, 2, 4, 2)
P = torch.tensor([0.0, 1, 0.3, 0.3, 1e-30, 1])
T = torch.tensor([0.0, 0, 1, 0.4, 0, 1])

CASES = [
    Case(f"{name} {reduction}", lambda x, y, g=g, r=reduction: g(x, y, r), (STEPS, ZERO))
    for name, g in {
        "mse": lambda x, y, r: f.mse_loss(x, y, reduction=r),
        "l1": lambda x, y, r: f.l1_loss(x, y, reduction=r),
        "smooth_l1": lambda x, y, r: f.smooth_l1_loss(x, y, reduction=r),
        "smooth_l1 half": lambda x, y, r: f.smooth_l1_loss(x, y, reduction=r, beta=0.5),
        "smooth_l1 zero": lambda x, y, r: f.smooth_l1_loss(x, y, reduction=r, beta=0.0),
        "huber": lambda x, y, r: f.huber_loss(x, y, reduction=r, delta=0.5),
    }.items()
    for reduction in ("none", "mean", "sum")
]
CASES += [
    Case("nll", lambda x: f.nll_loss(x, LABELS), (X,)),
    Case("nll weight", lambda x, w: f.nll_loss(x, LABELS, w.detach()), (X, Y[0].abs())),
    Case("nll none", lambda x: f.nll_loss(x, LABELS, reduction="none"), (X,)),
    Case("nll image", lambda x: f.nll_loss(x, PIXELS), (draw(2, 3, 4, 2),)),
    Case("nll one", lambda x: f.nll_loss(x, torch.tensor(2)), (X[0],)),
    Case("cross entropy", lambda x: f.cross_entropy(x, LABELS), (X,)),
    Case(
        "cross entropy smooth",
        lambda x, w: f.cross_entropy(x, LABELS, w.detach(), label_smoothing=0.2),
        (X, Y[0].abs()),
    ),
    Case(
        "cross entropy shares",
        lambda x, y: f.cross_entropy(x, y.softmax(1), label_smoothing=0.1),
        (X, Y),
    ),
    Case(
        "cross entropy impossible",
        lambda x: f.cross_entropy(x.masked_fill(x < -1, -torch.inf), LABELS % 5),
        (X[:, :] - X.min(1, keepdim=True).values.roll(1),),
    ),
    Case(
        "bce at bounds",
        lambda p: f.binary_cross_entropy(p, T.to(p.dtype), reduction="none"),
        (P,),
        1e-8,
    ),
    Case(
        "bce weight",
        lambda p: f.binary_cross_entropy(p, T.to(p.dtype), T.to(p.dtype) + 1),
        (P.clamp(0.1, 0.9),),
    ),
    Case(
        "bce logits",
        lambda x, y: f.binary_cross_entropy_with_logits(
            x, y.sigmoid(), pos_weight=y[0].exp().detach()
        ),
        (X * 30, Y),
    ),
    Case("kl", lambda x, y: f.kl_div(x, y.softmax(1), reduction="batchmean"), (X, Y)),
    Case("kl log", lambda x, y: f.kl_div(x, y, reduction="sum", log_target=True), (X, Y)),
    Case("soft margin", lambda x: f.soft_margin_loss(x, SIGNS[:, None].expand(4, 5)), (X,)),
    Case("multi margin", lambda x: f.multi_margin_loss(x, LABELS.abs() % 5), (X.round(),)),
    Case(
        "multi margin squared",
        lambda x, w: f.multi_margin_loss(x, LABELS.abs() % 5, 2, 0.5, w.detach()),
        (X, Y[0]),
    ),
    Case(
        "multilabel margin",
        lambda x: f.multilabel_margin_loss(
            x,
            torch.tensor([[3, 0, -1, 1, 2], [-1, 0, 1, 2, 3], [0, 1, 2, 3, 4], [2, -1, -1, 4, 4]]),
        ),
        (X.round(),),
    ),
    Case(
        "multilabel soft",
        lambda x: f.multilabel_soft_margin_loss(x, T[None, :5].to(x.dtype)),
        (X[:1],),
    ),
    Case(
        "hinge",
        lambda x: f.hinge_embedding_loss(x, torch.tensor([1.0, -1, 1, -1, 1, -1, -1])),
        (STEPS,),
    ),
    Case(
        "ranking",
        lambda x, y: f.margin_ranking_loss(x, y, torch.ones(7), margin=0.5),
        (STEPS, ZERO),
    ),
    Case("cosine", lambda x, y: f.cosine_embedding_loss(x, y, SIGNS, 0.1), (X, Y)),
    Case("cosine zero", lambda x, y: f.cosine_embedding_loss(x, y, SIGNS), (X * 0, Y)),
    Case("triplet", lambda x, y: f.triplet_margin_loss(x, y, x.roll(1, 0), swap=True), (X, Y)),
    Case("poisson", lambda x, y: f.poisson_nll_loss(x, y.exp().round(), full=True), (X, Y)),
    Case("poisson plain", lambda x, y: f.poisson_nll_loss(x.exp(), y.exp(), False), (X, Y)),
    Case(
        "gaussian", lambda x, y: f.gaussian_nll_loss(x, y, torch.relu(x + 0.5), full=True), (X, Y)
    ),
    Case("gaussian one variance", lambda x, y: f.gaussian_nll_loss(x, y, 0.5), (X, Y)),
    Case(
        "gaussian variance per row",
        lambda x, y, v: f.gaussian_nll_loss(x, y, v.exp(), reduction="none"),
        (X, Y, X[:, 0]),
    ),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("losses")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


TARGETS = torch.tensor([[1, 1, 2], [3, 2, 1], [2, 3, 3], [1, 2, 3]])
CTC = [
    ([8, 8, 8, 8], [3, 2, 1, 0], False),
    ([8, 5, 3, 1], [3, 2, 1, 1], False),
    ([3, 8, 8, 8], [3, 3, 3, 3], True),  # 1 1 2 does not fit in 3 moments
]


@pytest.mark.few(4)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("lengths", "target_lengths", "zero_infinity"), CTC)
@pytest.mark.parametrize("listed", [False, True])
def test_ctc(lengths, target_lengths, zero_infinity, listed, reduction):
    """Also the gradient for inputs that are not normalised, which is torch's own."""
    targets = TARGETS
    if listed:
        targets = torch.cat([t[:n] for t, n in zip(TARGETS, target_lengths, strict=True)])
    module = Wrapped(
        lambda x: f.ctc_loss(x, targets, lengths, target_lengths, 0, reduction, zero_infinity)
    )
    x = draw(8, 4, 5).requires_grad_()
    expected = module(x)
    expected.sum().backward()
    net = to_jax(module)
    run = jax.jit(jax.value_and_grad(lambda x: net({}, x).sum()))
    value, slope = run(jnp.asarray(x.detach().numpy()))
    np.testing.assert_allclose(value, expected.sum().detach(), rtol=1e-5)
    np.testing.assert_allclose(slope, x.grad, rtol=1e-4, atol=1e-5)


def test_ctc_of_one_sequence():
    module = torch.nn.CTCLoss(blank=4)
    x = draw(6, 5).log_softmax(-1)
    lengths = (torch.tensor(6), torch.tensor(2))
    target = torch.tensor([1, 3])
    found = to_jax(module)(
        {}, jnp.asarray(x.numpy()), *(jnp.asarray(t.numpy(), jnp.int32) for t in (target, *lengths))
    )
    np.testing.assert_allclose(found, module(x, target, *lengths), rtol=1e-5)

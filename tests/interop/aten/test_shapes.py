import pytest
import torch

from interop import to_jax
from interop.errors import ConversionError
from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import All, draw
from tests.interop.aten.check import draw_integers as integers

X = draw(2, 3, 4)
M = draw(4, 5, seed=1)
V = draw(6, seed=2)
C = draw(2, 3, seed=3, dtype=torch.complex64)

CASES = [
    Case("view", lambda x: x.view(6, -1), (X,)),
    Case("reshape after transpose", lambda x: x.transpose(0, 2).reshape(4, 6), (X,)),
    Case("view as bytes", lambda x: x.view(torch.uint8), (integers(0, 99, 2, 3).short(),)),
    Case("view as wider", lambda x: x.to(torch.int16).view(torch.int32), (integers(0, 99, 2, 4),)),
    Case("flatten", lambda x: (x.flatten(), x.flatten(1), x.sum().flatten()), (X,)),
    Case("unflatten", lambda x: x.unflatten(-1, (2, -1)), (X,)),
    Case("permute", lambda x: x.permute(2, -3, 1), (X,)),
    Case("transpose", lambda x: (x.transpose(0, -1), x[0].t(), x[0, 0].t(), x.mT), (X,)),
    Case("adjoint", lambda x: (x.mH, x.adjoint(), x.H), (C,)),
    Case("movedim", lambda x: (x.movedim(0, -1), x.movedim((0, 1), (-1, 0))), (X,)),
    Case("expand", lambda x: (x.expand(2, 2, 3, 4), x[:1].expand(5, -1, 4)), (X,)),
    Case("expand_as", lambda x, y: x[0].expand_as(y), (X, draw(5, 3, 4))),
    Case("broadcast", lambda x, y: torch.broadcast_tensors(x, y), (X, draw(3, 1))),
    Case("meshgrid", lambda x, y: torch.meshgrid(x, y, indexing="xy"), (V, V[:2])),
    Case("cartesian_prod", lambda x, y: torch.cartesian_prod(x, y), (V, V[:2])),
    Case("unsqueeze", lambda x: (x.unsqueeze(0), x.unsqueeze(-1), x[None, :, None]), (X,)),
    Case("squeeze", lambda x: (x[:1].squeeze(), x.squeeze(1), x[:1, :1].squeeze((0, 2))), (X,)),
    Case("squeeze a scalar", lambda x: (x.sum().squeeze(), x.sum().squeeze(0)), (X,)),
    Case("cat", lambda x, y: torch.cat([x, y, x], -1), (X, draw(2, 3, 1))),
    Case("cat promotes", lambda x, y: torch.cat([x, y]), (V, integers(0, 4, 3))),
    Case("cat skips empty", lambda x: torch.cat([x.new_zeros(0), x], 1), (X,)),
    Case("stack", lambda x, y: torch.stack([x, y], -1), (V, V + 1)),
    Case("hstack", lambda x, y: (torch.hstack([x, y]), torch.vstack([x, y])), (V, V + 1)),
    Case("split", lambda x: (x.split(2, -1), x.split([1, 2], 1)), (X,)),
    Case("split unevenly", lambda x: x.split(4), (V,)),
    Case("chunk", lambda x: (x.chunk(4), x.chunk(5), x.tensor_split(4)), (V,)),
    Case("unbind", lambda x: (x.unbind(), x.unbind(-1)), (X,)),
    Case("select", lambda x: (x[1], x[:, -1], x.select(2, -2)), (X,)),
    Case("slice", lambda x: (x[:, 1:], x[..., ::2], x[:, 5:], x[..., -3:-1], x[:, 2:1]), (X,)),
    Case("narrow", lambda x: (x.narrow(2, 1, 2), x.narrow(-1, -3, 2)), (X,)),
    Case("select_scatter", lambda x, y: x.select_scatter(y, 1, -1), (X, draw(2, 4))),
    Case("slice_scatter", lambda x, y: x.slice_scatter(y, 2, 1, 9, 2), (X, draw(2, 3, 2))),
    Case("diagonal", lambda x: (x.diagonal(1), x.diagonal(-1, 1, 2), x.diagonal(9)), (X,)),
    Case("diagonal_scatter", lambda x, y: x.diagonal_scatter(y, -1, 2, 1), (X, draw(2, 3))),
    Case("diag_embed", lambda x: (x.diag_embed(), x.diag_embed(-1, 0, -2)), (X,)),
    Case("diag", lambda x, y: (torch.diag(x, 1), torch.diag(y), torch.diagflat(x)), (V, M)),
    Case("block_diag", lambda x, y: torch.block_diag(x, y, y.sum()), (M, V)),
    Case("tril", lambda x: (x.tril(), x.tril(1), x.triu(-1), x.triu(9)), (M,)),
    Case("flip", lambda x: (x.flip(0, -1), x.flip(()), x.fliplr()), (X,)),
    Case("roll", lambda x: (x.roll(1), x.roll((1, -2), (0, 2)), x.roll(5, -1)), (X,)),
    Case("rot90", lambda x: (x.rot90(), x.rot90(-1, (1, 2))), (X,)),
    Case("as_strided", lambda x: x.as_strided((2, 2, 3), (4, 1, 2), 3), (X,)),
    Case(  # torch's own gradient is wrong here: it keeps what was overwritten
        "as_strided_scatter",
        lambda x, y: x.as_strided_scatter(y, (2, 3), (6, 2), 1),
        (X, M[:2, :3]),
        gradient=False,
    ),
    Case("unfold", lambda x: (x.unfold(2, 2, 1), x.unfold(1, 2, 2), x.unfold(2, 4, 9)), (X,)),
    Case("complex views", lambda x: torch.view_as_complex(x[..., :2].contiguous()) * 2, (X,)),
    Case("real views", lambda x: (torch.view_as_real(x), x.real, x.imag), (C,)),
    Case("pixel_shuffle", lambda x: torch.nn.functional.pixel_shuffle(x, 2), (draw(2, 8, 3, 2),)),
    Case("pixel_unshuffle", lambda x: torch.nn.functional.pixel_unshuffle(x, 2), (draw(2, 4, 6),)),
    Case("channel_shuffle", lambda x: torch.nn.functional.channel_shuffle(x, 3), (draw(2, 6, 2),)),
    Case("in place on views", lambda x: _in_place(x), (X,)),
]


def _in_place(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[:, 1].mul_(2)
    x[0, ..., ::2] = 7
    x.diagonal(0, 1, 2).add_(1)
    x.transpose(0, 1)[2].zero_()
    return x


@grouped(CASES)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)


def test_strides_of_a_transposed_tensor_are_refused():
    net = to_jax(All({"": lambda x: x.t().as_strided((2,), (1,))}))
    with pytest.raises(ConversionError, match="as_strided"):
        net({}, [M.numpy()])

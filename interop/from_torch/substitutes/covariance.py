"""Covariances, without torch's looks at the values of weights."""

import math
from collections.abc import Callable
from typing import Any

import torch


def cov(
    input: torch.Tensor,
    *,
    correction: int = 1,
    fweights: torch.Tensor | None = None,
    aweights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Without the looks at the signs of weights and at how many observations are left."""
    rows = input.reshape(1, -1) if input.dim() < 2 else input
    weights = [w for w in (fweights, aweights) if w is not None]
    weight: Any = math.prod(weights) if weights else None
    count: Any = rows.shape[1] if weight is None else weight.sum()
    if weight is None or correction == 0:
        left = count if correction == 0 else count - correction
    elif aweights is None:
        left = count - correction
    else:
        left = count - correction * (weight * aweights).sum() / count
    mean = (rows if weight is None else rows * weight).sum(1, keepdim=True) / count
    rows = rows - mean
    products = rows @ (rows if weight is None else rows * weight).T.conj()
    left = max(left, 0) if isinstance(left, int) else left.clamp(min=0)
    return (products / left).squeeze()


def corrcoef(input: torch.Tensor) -> torch.Tensor:
    """From the substitute of ``cov``."""
    found = cov(input)
    if found.dim() == 0:
        return found / found
    scale = found.diag().real.sqrt()
    found = found / scale[:, None] / scale
    if found.is_complex():
        return torch.complex(found.real.clamp(-1, 1), found.imag.clamp(-1, 1))
    return found.clamp(-1, 1)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.cov: cov,
    torch.Tensor.cov: cov,
    torch.corrcoef: corrcoef,
    torch.Tensor.corrcoef: corrcoef,
}

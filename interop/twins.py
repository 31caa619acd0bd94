"""What torch.export refuses or gets wrong, in equal terms that it takes, while it runs."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import library
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def twins(module: torch.nn.Module) -> Iterator[None]:
    """Give parts of ``module``, which is a copy, exportable forwards, and functions their twins."""
    for part in module.modules():
        for fits, forward in MODULES:
            if fits(part):
                part.forward = forward(part, part.forward)
    with Functions():
        yield


class Functions(TorchFunctionMode):
    """Calls of torch's functions go to their twins, where they have one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch calls in place of every function."""
        twin = FUNCTIONS.get(func, func)
        return twin(*args, **(kwargs or {}))


def _shifted(values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """These values, with the gradient of the other tensor."""
    return values.detach() + (gradient - gradient.detach())


def gaussian_nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    var: torch.Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> torch.Tensor:
    """Without the look at the variance's sign; the bound on it passes the gradient, as in torch."""
    if not isinstance(var, torch.Tensor):
        var = var * torch.ones_like(input)
    if var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    var = _shifted(var.clamp(min=eps), var)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduced(loss, reduction)


def _reduced(loss: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


@library.custom_op("interop::ctc_loss", mutates_args=())
def _ctc_loss(
    log_p: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int,
    zero_infinity: bool,
) -> torch.Tensor:
    return functional.ctc_loss(
        log_p, targets, input_lengths, target_lengths, blank, "none", zero_infinity
    )


@_ctc_loss.register_fake
def _(log_p: torch.Tensor, *_: Any) -> torch.Tensor:
    return log_p.new_empty(log_p.shape[1])


def _ignore_gradient(ctx: Any, *gradients: Any) -> Any:
    raise NotImplementedError("interop::ctc_loss is for torch.export alone")


_ctc_loss.register_autograd(_ignore_gradient)


def ctc_loss(
    log_p: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str | int = "mean",
    zero_infinity: bool = False,
) -> torch.Tensor:
    """One operation, which has a rule, of lengths as tensors; then the reduction."""
    reduction = reduction if isinstance(reduction, str) else ("none", "mean", "sum")[reduction]
    lengths = []
    for given in (input_lengths, target_lengths):
        given = given if isinstance(given, torch.Tensor) else torch.tensor(given)
        lengths.append(given.to(torch.int64).reshape(-1))
    alone = log_p.dim() == 2
    loss = torch.ops.interop.ctc_loss(
        log_p.unsqueeze(1) if alone else log_p,
        targets.unsqueeze(0) if alone and targets.dim() == 1 else targets,
        *lengths,
        blank,
        zero_infinity,
    )
    if reduction == "mean":
        loss = loss / lengths[1].clamp(min=1).to(loss.dtype)
    return loss.squeeze(0) if alone and reduction == "none" else _reduced(loss, reduction)


def instance_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """torch.export forgets that running statistics change: here they do in sight."""
    if use_input_stats and running_mean is not None and running_var is not None:
        axes = list(range(2, input.dim()))
        count = math.prod(input.shape[2:])
        wide = input.detach().to(running_mean.dtype)
        mean = wide.mean(axes).mean(0)
        var = wide.var(axes, correction=0).mean(0) * (count / max(count - 1, 1))
        running_mean.copy_((1 - momentum) * running_mean + momentum * mean)
        running_var.copy_((1 - momentum) * running_var + momentum * var)
        running_mean = running_var = None
    return functional.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def embedding(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    """Rows no longer than ``max_norm``. The weight, which torch shortens in place, stays."""
    how = (padding_idx, None, norm_type, scale_grad_by_freq, sparse)
    return functional.embedding(input, _renormed(weight, input, max_norm, norm_type), *how)


def _renormed(
    weight: torch.Tensor, input: torch.Tensor, max_norm: float | None, norm_type: float
) -> torch.Tensor:
    if max_norm is None:
        return weight
    short = torch.ops.aten.embedding_renorm(weight.detach(), input.reshape(-1), max_norm, norm_type)
    return _shifted(short, weight)


def embedding_bag(
    input: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    *more: Any,
    **named: Any,
) -> torch.Tensor:
    """The same of bags."""
    if weight.dtype == torch.long and input.is_floating_point():
        input, weight = weight, input  # torch takes the older order with a warning
    short = _renormed(weight, input, max_norm, norm_type)
    return functional.embedding_bag(input, short, offsets, None, norm_type, *more, **named)


def multilabel_margin_loss(
    input: torch.Tensor, target: torch.Tensor, *how: Any, **named: Any
) -> torch.Tensor:
    """Of one row it is a number, which torch forgets when it traces."""
    loss = functional.multilabel_margin_loss(input, target, *how, **named)
    return loss.reshape(()) if input.dim() < 2 else loss


def multi_margin_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Without slope at the kink; torch.export takes it apart into what has one."""
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)
    rows = input.reshape(-1, input.shape[-1])
    at = target.reshape(-1, 1)
    hinge = margin - rows.gather(1, at) + rows
    others = torch.arange(rows.shape[1], device=rows.device) != at
    hinge = torch.where((hinge > 0) & others, hinge, torch.zeros_like(hinge))
    hinge = hinge * hinge if p == 2 else hinge
    hinge = hinge if weight is None else hinge * weight[at]
    losses = hinge.sum(1) / rows.shape[1]
    return _reduced(losses.reshape(target.shape), reduction)


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
    """From ``cov``'s twin."""
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
    functional.gaussian_nll_loss: gaussian_nll_loss,
    functional.ctc_loss: ctc_loss,
    torch.ctc_loss: ctc_loss,
    functional.instance_norm: instance_norm,
    functional.multi_margin_loss: multi_margin_loss,
    functional.multilabel_margin_loss: multilabel_margin_loss,
    functional.embedding: embedding,
    functional.embedding_bag: embedding_bag,
}


def _averages_without_end(part: torch.nn.Module) -> bool:
    return (
        isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
        and part.momentum is None
        and part.track_running_stats
        and part.training
    )


def _averaging(part: Any, _: Any) -> Callable[..., torch.Tensor]:
    """The momentum is one over a count that is a tensor."""

    def forward(input: torch.Tensor) -> torch.Tensor:
        part._check_input_dim(input)
        part.num_batches_tracked.add_(1)
        share = 1.0 / part.num_batches_tracked.to(part.running_mean.dtype)
        fresh = (torch.zeros_like(part.running_mean), torch.zeros_like(part.running_var))
        out = functional.batch_norm(
            input, *fresh, part.weight, part.bias, training=True, momentum=1.0, eps=part.eps
        )
        for running, new in zip((part.running_mean, part.running_var), fresh, strict=True):
            running.copy_((1 - share) * running + share * new.detach())
        return out

    return forward


def _guesses_causality(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.TransformerEncoder | torch.nn.TransformerDecoder)


def _without_guess(part: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Whether a mask is causal is a hint, which changes no value: not looked for."""
    name = "is_causal" if isinstance(part, torch.nn.TransformerEncoder) else "tgt_is_causal"
    place = 3 if name == "is_causal" else 6

    def unguessed(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place:
            return forward(*args, **kwargs)
        if kwargs.get(name) is None:
            kwargs[name] = False
        return forward(*args, **kwargs)

    return unguessed


MODULES: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]], ...] = (
    (_averages_without_end, _averaging),
    (_guesses_causality, _without_guess),
)

"""A torch module whose layers hold ``weight_mu`` and ``weight_log_sigma`` and sample in forward."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from interop.arrays import to_tensor

__all__ = ["to_sampling_module"]

MU, LOG_SIGMA = "_mu", "_log_sigma"


def to_sampling_module(module: torch.nn.Module, params: Mapping[str, Any]) -> torch.nn.Module:
    """A copy of ``module`` in which parameters are drawn anew whenever a layer reads them.

    A parameter ``fc.weight`` for which ``params`` has ``fc.weight_mu`` and ``fc.weight_log_sigma``
    becomes ``mu + exp(log_sigma) * noise``, of which both are parameters under those names, so that
    torch trains them and ``state_dict`` has them. The noise is torch's own. With
    ``layer.sampling = False`` a layer reads its means.

    Args:
        module: the module that the params belong to; not changed.
        params: arrays or tensors by name; a name without ``_mu`` and ``_log_sigma`` is the
            parameter's value.

    Raises:
        ValueError: a name fits no parameter, one of a pair is missing, or a shape differs; all are
            named.

    Example:
        >>> import torch, interop
        >>> one = torch.ones(1, 2)
        >>> layer = interop.to_sampling_module(
        ...     torch.nn.Linear(2, 1, bias=False), {"weight_mu": one, "weight_log_sigma": -one}
        ... )
        >>> list(layer.state_dict())
        ['weight_mu', 'weight_log_sigma']
        >>> bool(layer(one) == layer(one))
        False
    """
    made = copy.deepcopy(module)
    own = dict(made.named_parameters())
    pairs, wrong = _pairs(params, own)
    for name, values in pairs.items():
        wrong += [
            f"'{name}': shape {tuple(v.shape)}, the parameter has {tuple(own[name].shape)}"
            for v in values
            if tuple(v.shape) != tuple(own[name].shape)
        ]
    if wrong:
        raise ValueError(f"to_sampling_module: {'; '.join(wrong[:8])}")
    by_layer: dict[str, dict[str, tuple[Any, ...]]] = {}
    for name, values in pairs.items():
        path, _, attribute = name.rpartition(".")
        by_layer.setdefault(path, {})[attribute] = values
    for path, attributes in by_layer.items():
        _sample(made.get_submodule(path), attributes)
    return made


def _pairs(
    params: Mapping[str, Any], own: Mapping[str, torch.Tensor]
) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """(mu, log sigma) or (value,) for each parameter, and what is wrong with the names."""
    found: dict[str, tuple[Any, ...]] = {}
    wrong = []
    for name, value in params.items():
        if name in own:
            found[name] = (value,)
        elif name.endswith(MU) and name.removesuffix(MU) in own:
            base = name.removesuffix(MU)
            if base + LOG_SIGMA in params:
                found[base] = (value, params[base + LOG_SIGMA])
            else:
                wrong.append(f"'{name}' comes without '{base + LOG_SIGMA}'")
        elif name.endswith(LOG_SIGMA) and name.removesuffix(LOG_SIGMA) in own:
            if name.removesuffix(LOG_SIGMA) + MU not in params:
                wrong.append(f"'{name}' comes without '{name.removesuffix(LOG_SIGMA) + MU}'")
        else:
            wrong.append(f"'{name}' fits no parameter")
    wrong += [f"'{name}' is missing" for name in own if name not in found and not wrong]
    return found, wrong


def _sample(layer: torch.nn.Module, attributes: Mapping[str, tuple[Any, ...]]) -> None:
    """Give ``layer`` a class of its own in which the attributes are drawn when read."""
    drawn: dict[str, Any] = {}
    for attribute, values in attributes.items():
        tensors = [v if isinstance(v, torch.Tensor) else to_tensor(v) for v in values]
        tensors = [v.detach().clone() for v in tensors]
        if len(tensors) == 1:
            setattr(layer, attribute, torch.nn.Parameter(tensors[0]))
            continue
        delattr(layer, attribute)
        for suffix, tensor in zip((MU, LOG_SIGMA), tensors, strict=True):
            layer.register_parameter(attribute + suffix, torch.nn.Parameter(tensor))
        drawn[attribute] = property(_reader(attribute))
    if drawn:
        kind = type(layer)
        layer.__class__ = type(f"Sampling{kind.__name__}", (kind,), {"sampling": True, **drawn})


def _reader(attribute: str) -> Any:
    def read(layer: Any) -> torch.Tensor:
        mu = getattr(layer, attribute + MU)
        if not layer.sampling:
            return mu
        return mu + torch.exp(getattr(layer, attribute + LOG_SIGMA)) * torch.randn_like(mu)

    return read

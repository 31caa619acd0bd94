"""A torch module whose layers hold ``weight_mu`` and ``weight_log_sigma`` and sample in forward."""

import copy
import copyreg
import functools
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from interop.arrays import to_tensor
from interop.memory import first_names

__all__ = ["to_sampling_module"]

MU, LOG_SIGMA = "_mu", "_log_sigma"
# Where a layer has what it shares with those that it is tied to, and its class how it was made.
_DRAWS, _KIND = "_draws", "_sampling_kind"


def to_sampling_module(module: torch.nn.Module, params: Mapping[str, Any]) -> torch.nn.Module:
    """A copy of ``module`` in which parameters are drawn anew whenever a layer reads them.

    A parameter ``fc.weight`` for which ``params`` has ``fc.weight_mu`` and ``fc.weight_log_sigma``
    becomes ``mu + exp(log_sigma) * noise``, of which both are parameters under those names, so that
    torch trains them and ``state_dict`` has them. The noise is torch's own. With
    ``layer.sampling = False`` a layer reads its means. A tied weight stays one parameter, and has
    one value in a call of the module. ``copy.deepcopy`` and ``torch.save`` take the whole module
    (``torch.load(path, weights_only=False)`` gives it back); its ``state_dict`` is the safer file.

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
    first = first_names(dict(made.named_parameters(remove_duplicate=False)))
    own = {name: made.get_parameter(name) for name in first}
    pairs, wrong = _pairs(params, own, first)
    for name, values in pairs.items():
        wrong += [
            f"'{name}': shape {tuple(v.shape)}, the parameter has {tuple(own[name].shape)}"
            for v in values
            if tuple(v.shape) != tuple(own[name].shape)
        ]
    if wrong:
        raise ValueError(f"to_sampling_module: {'; '.join(wrong[:8])}")
    weights = {name: _weight(values) for name, values in pairs.items()}
    by_layer: dict[str, dict[str, _Weight]] = {}
    for name, of in first.items():
        path, _, attribute = name.rpartition(".")
        by_layer.setdefault(path, {})[attribute] = weights[of]
    for path, attributes in by_layer.items():
        _sample(made.get_submodule(path), attributes)
    tied = [w for n, w in weights.items() if list(first.values()).count(n) > 1]
    if any(w.log_sigma is not None for w in tied):
        _draw_once(made, tied)
    return made


def _pairs(
    params: Mapping[str, Any], own: Mapping[str, torch.Tensor], first: Mapping[str, str]
) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """(mu, log sigma) or (value,) by each parameter's first name, and what is wrong with names."""
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
    by_first: dict[str, tuple[Any, ...]] = {}
    for name, values in found.items():
        if first[name] in by_first:
            wrong.append(f"'{name}' is tied to another name that is given: pass one of them")
        by_first[first[name]] = values
    missing = dict.fromkeys(n for n in first.values() if n not in by_first)
    wrong += [f"'{name}' is missing" for name in missing if not wrong]
    return by_first, wrong


class _Weight(NamedTuple):
    """One weight; its value is ``mu`` where it has no ``log_sigma``."""

    mu: torch.nn.Parameter
    log_sigma: torch.nn.Parameter | None
    draw: "_Draw"


class _Draw:
    """What tied layers share of a weight: in a forward that draws it once, the value."""

    def __init__(self) -> None:
        self.value: torch.Tensor | None = None
        self.once = False

    def read(self, mu: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        """A draw: of what the layer holds now, wherever the module was moved."""
        if self.value is not None:
            return self.value
        value = mu + torch.exp(log_sigma) * torch.randn_like(mu)
        self.value = value if self.once else None
        return value

    def __getstate__(self) -> dict[str, Any]:
        # A copy is in no forward.
        return {"value": None, "once": False}


def _weight(values: tuple[Any, ...]) -> _Weight:
    tensors = [v if isinstance(v, torch.Tensor) else to_tensor(v) for v in values]
    mu, *rest = (torch.nn.Parameter(v.detach().clone()) for v in tensors)
    return _Weight(mu, rest[0] if rest else None, _Draw())


def _sample(layer: torch.nn.Module, attributes: Mapping[str, _Weight]) -> None:
    """Give ``layer`` a class of its own in which the attributes are drawn when read."""
    draws: dict[str, _Draw] = {}
    for attribute, weight in attributes.items():
        if weight.log_sigma is None:
            setattr(layer, attribute, weight.mu)
            continue
        delattr(layer, attribute)
        layer.register_parameter(attribute + MU, weight.mu)
        layer.register_parameter(attribute + LOG_SIGMA, weight.log_sigma)
        draws[attribute] = weight.draw
    if draws:
        # Of the layer rather than of its class, so that copies and files have their own.
        vars(layer)[_DRAWS] = draws
        layer.__class__ = _sampling_class(type(layer), tuple(draws))


def _sampling_class(kind: type, attributes: tuple[str, ...]) -> type:
    drawn = {attribute: property(_reader(attribute)) for attribute in attributes}
    own = {"sampling": True, "__reduce_ex__": _reduce, _KIND: (kind, attributes), **drawn}
    return type(f"Sampling{kind.__name__}", (kind,), own)


def _reader(attribute: str) -> Any:
    def read(layer: Any) -> torch.Tensor:
        mu = getattr(layer, attribute + MU)
        if not layer.sampling:
            return mu
        draw: _Draw = vars(layer)[_DRAWS][attribute]
        return draw.read(mu, getattr(layer, attribute + LOG_SIGMA))

    return read


def _reduce(layer: Any, protocol: int) -> Any:
    """For pickle and copy: the class is made again, since no module holds it."""
    kind, attributes = getattr(layer, _KIND)
    make, args, *rest = super(type(layer), layer).__reduce_ex__(max(protocol, 2))
    if make is not copyreg.__newobj__:  # type: ignore[attr-defined]
        raise pickle.PicklingError(
            f"a sampling {kind.__name__} cannot be pickled or copied, since {kind.__name__} "
            "defines how itself: save its state_dict"
        )
    return (sampling_layer, (kind, attributes, *args[1:]), *rest)


def sampling_layer(kind: type, attributes: tuple[str, ...], *args: Any) -> Any:
    """An empty layer whose ``attributes`` are drawn when read, as files and copies need it."""
    made = _sampling_class(kind, attributes)
    return made.__new__(made, *args)


def _draw_once(module: torch.nn.Module, weights: list[_Weight]) -> None:
    """In one call of the module a tied weight has one value, wherever it is read."""
    draws = [weight.draw for weight in weights]
    module.register_forward_pre_hook(functools.partial(_set_once, draws, True))
    module.register_forward_hook(functools.partial(_set_once, draws, False), always_call=True)


def _set_once(draws: list[_Draw], once: bool, *_: Any) -> None:
    for draw in draws:
        draw.value, draw.once = None, once

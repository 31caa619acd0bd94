"""Tensors whose values are known while a module is exported: what is made of constants alone.

``torch.tensor([4, 4]).tolist()``, ``grid.max()`` of a static input, ``x[mask]`` of a mask that
no input has a part in. Every call whose tensors are all known is run with their values too, so
that Python can be told them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from interop._torch import HigherOrderOperator, is_plain, outside_tracing, pytree
from interop.from_torch.detached import is_in_place
from interop.from_torch.forward import ForwardMode

__all__ = ["Known", "is_small"]

_ASKS = {
    getattr(torch.Tensor, name)
    for name in (
        *("tolist", "item", "numpy", "equal", "is_nonzero"),
        *("__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__"),
    )
} | {torch.equal, torch.is_nonzero}
"""What gives Python the values."""

_SHAPED = {
    *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"),
    *("repeat_interleave", "arange", "linspace", "full", "zeros", "ones"),
}
"""Names of functions whose results have shapes that depend on values."""

_MAKERS = {
    *("tensor", "as_tensor", "arange", "linspace", "logspace", "full", "zeros", "ones", "eye"),
    *("tril_indices", "triu_indices", "from_numpy", "meshgrid", "scalar_tensor"),
}
"""Names of functions that make tensors of numbers."""

_VIEWS_OF_FIRST = {"expand_as", "view_as", "reshape_as", "to", "type_as", "broadcast_tensors"}
_WRITE_STATISTICS = {"batch_norm", "instance_norm", "embedding", "embedding_bag"}

_BYTES = 1 << 20
"""What is held of one tensor at most."""


_SIZED = {
    *("pad", "view", "reshape", "expand", "repeat", "tile", "unflatten", "narrow", "roll"),
    *("split", "split_with_sizes", "unfold", "new_zeros", "new_ones", "new_full"),
}
"""Names of functions that take numbers after their first argument, which may be tensors."""


class Known(ForwardMode):
    """Answers for values that no argument of forward, parameter or buffer has a part in.

    Args:
        module: what is exported.
        buffers: values of those buffers that count as known too, by name.

    Attributes:
        decided: the names of the buffers on whose values Python has decided something.
    """

    def __init__(self, module: torch.nn.Module, buffers: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._values: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._shared: set[int] = set()  # memory of which there are views not known here
        self._made_of: dict[int, frozenset[str]] = {}  # which buffers
        self._buffers = {name: buffer.detach().clone() for name, buffer in buffers.items()}
        self.decided: set[str] = set()
        if buffers:
            module.register_forward_pre_hook(lambda part, _: self._begin(part))

    def _begin(self, module: torch.nn.Module) -> None:
        """By now they are what forward is traced with."""
        for name, buffer in module.named_buffers():
            if name in self._buffers:
                with outside_tracing():
                    self._values[id(buffer)] = (buffer, self._buffers[name].clone())
                self._made_of[id(buffer)] = frozenset((name,))

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        if isinstance(func, HigherOrderOperator):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("__getitem__", "__setitem__"):
            args = (args[0], self._places(args[1]), *args[2:])
        elif name in _SIZED:
            args = (*args[:1], *(self._numbers(x) for x in args[1:]))
            kwargs = {k: x if k == "input" else self._numbers(x) for k, x in kwargs.items()}
        tensors = list(_tensors((args, kwargs)))
        if not tensors and name not in _MAKERS:
            return func(*args, **kwargs)
        if not all(map(self._is_known, tensors)):
            return self._mixed(func, name, tensors, args, kwargs)
        found, real = self._evaluated(func, args, kwargs)
        if not found:
            self._forget(tensors)
            return func(*args, **kwargs)
        if func in _ASKS:
            self._decide(tensors)
            return real
        by_values = name in _SHAPED and tensors and not any(x.requires_grad for x in tensors)
        if by_values:
            self._decide(tensors)
        out = _constant(real) if by_values else func(*args, **kwargs)
        self._remember(out, real)
        self._trace(out, tensors, is_in_place(func))
        return out

    def _decide(self, tensors: list[torch.Tensor]) -> None:
        """Python is told the values of these."""
        self.decided |= self._sources(tensors)

    def _sources(self, tensors: list[torch.Tensor]) -> frozenset[str]:
        known = (id(x) for x in tensors if id(x) in self._values)
        return frozenset().union(*(self._made_of.get(i, ()) for i in known))

    def _trace(self, out: Any, tensors: list[torch.Tensor], in_place: bool) -> None:
        """What is made of the buffers that ``tensors`` are made of."""
        names = self._sources(tensors)
        if names:
            made = [*_tensors(out), *(tensors[:1] if in_place else ())]
            places = {id(x) for x in made}
            if in_place:
                memory = _storage(self._value(tensors[0]))
                places |= {i for i, (_, v) in self._values.items() if _storage(v) == memory}
            self._made_of.update({i: self._made_of.get(i, names) | names for i in places})

    def _numbers(self, tree: Any) -> Any:
        """Known integers as Python's."""

        def number(tensor: torch.Tensor) -> Any:
            integer = not (tensor.is_floating_point() or tensor.is_complex())
            if tensor.dim() or not integer or not self._is_known(tensor):
                return tensor
            self._decide([tensor])
            with outside_tracing():
                return self._value(tensor).item()

        return pytree.tree_map_only(torch.Tensor, number, tree)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        if id(tensor) in self._values:
            return True
        if not is_plain(tensor) or isinstance(tensor, torch.nn.Parameter):
            return False
        if tensor.requires_grad or not is_small(tensor):
            return False
        with outside_tracing():
            self._values[id(tensor)] = (tensor, tensor.clone())
        return True

    def _evaluated(self, func: Any, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Whether the call has values of its own, and what they are."""
        if kwargs.get("generator") is not None or _is_undefined(func.__name__):
            return False, None
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._value, (args, kwargs))
        with outside_tracing(), torch.no_grad():
            before = torch.get_rng_state()
            try:
                real = func(*args, **kwargs)
            except Exception:  # which torch.export will have too, or knows a way around
                return False, None
            random = not torch.equal(before, torch.get_rng_state())
            if random:
                torch.set_rng_state(before)
        return not random and all(map(is_small, _tensors(real))), real

    def _value(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._values[id(tensor)][1]

    def _remember(self, out: Any, real: Any) -> None:
        made, values = list(_tensors(out)), list(_tensors(real))
        if len(made) == len(values):
            self._values.update({id(x): (x, v) for x, v in zip(made, values, strict=True)})

    def _mixed(
        self, func: Any, name: str, tensors: list[torch.Tensor], args: Any, kwargs: Any
    ) -> Any:
        """A call in which tensors that are not known take part."""
        if is_in_place(func) or "out" in kwargs or name in _WRITE_STATISTICS:
            self._forget(tensors)
            self._values = {
                i: pair for i, pair in self._values.items() if _storage(pair[1]) not in self._shared
            }
        elif name in _VIEWS_OF_FIRST:
            self._shared |= {_storage(self._value(x)) for x in tensors if id(x) in self._values}
        if name in _BY_NUMBERS and len(args) > 1 and id(args[1]) in self._values:
            self._decide([args[1]])
            with outside_tracing():
                number = self._value(args[1]).clone()
            return _BY_NUMBERS[name](args[0], number, *args[2:], **kwargs)
        return func(*args, **kwargs)

    def _places(self, index: Any) -> Any:
        """An index in which known masks and bounds are numbers."""
        single = not isinstance(index, tuple)
        parts: list[Any] = []
        for part in (index,) if single else index:
            mask = isinstance(part, torch.Tensor) and part.dtype is torch.bool
            if isinstance(part, slice):
                bounds = (part.start, part.stop, part.step)
                if any(isinstance(x, torch.Tensor) for x in bounds):
                    part = slice(*map(self._numbers, bounds))
                parts.append(part)
            elif mask and part.dim() and self._is_known(part):
                self._decide([part])
                with outside_tracing():
                    parts += [i.clone() for i in self._value(part).nonzero(as_tuple=True)]
            else:
                parts.append(part)
        return index if single and parts[0] is index else tuple(parts)

    def _forget(self, tensors: list[torch.Tensor]) -> None:
        """What shares memory with any of them."""
        gone = {_storage(self._value(x)) for x in tensors if id(x) in self._values}
        if gone:
            self._values = {
                i: pair for i, pair in self._values.items() if _storage(pair[1]) not in gone
            }


def _repeat(
    x: torch.Tensor, repeats: torch.Tensor, dim: int | None = None, *, output_size: Any = None
) -> torch.Tensor:
    if dim is None:
        x, dim = x.flatten(), 0
    with outside_tracing():
        count = x.shape[dim]
        places = torch.arange(count).repeat_interleave(repeats.expand(count))
    return x.index_select(dim, places)


def _select(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with outside_tracing():
        shape = torch.broadcast_shapes(x.shape, mask.shape)
        places = [i.clone() for i in mask.expand(shape).nonzero(as_tuple=True)]
    return x.expand(shape)[tuple(places)]


def _split(x: torch.Tensor, at: torch.Tensor, dim: int = 0) -> Any:
    return x.tensor_split(at.tolist(), dim)


_BY_NUMBERS: dict[str, Callable[..., Any]] = {
    "repeat_interleave": _repeat,
    "masked_select": _select,
    "tensor_split": _split,
}
"""How a function is called whose second argument alone is known."""


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor))


def _constant(tree: Any) -> Any:
    """The same in the program, where it may be written into."""
    with outside_tracing():
        tree = pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, tree)
    return pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, tree)


def _is_undefined(name: str) -> bool:
    """Whether a function gives memory as it is."""
    return name.rpartition("new_")[2].startswith("empty") or name in ("new", "resize_", "set_")


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def is_small(tensor: torch.Tensor) -> bool:
    """Whether its values are worth holding."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return dense and tensor.untyped_storage().nbytes() <= _BYTES

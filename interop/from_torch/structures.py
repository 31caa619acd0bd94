"""Inputs and outputs of a module: what of them are arrays, and how they are held together.

torch.export sees tensors alone. Containers, numbers and strings are taken off before and put back
after, so that any class may hold them, known to a registry of pytrees or not.
"""

import dataclasses
import enum
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import torch

from interop._torch import pytree
from interop.arrays import to_array
from interop.errors import ConversionError
from interop.from_torch.static import Static

__all__ = ["Container", "Structure", "flatten", "is_array", "to_pytree"]


@dataclass(frozen=True)
class Structure:
    """How leaves are held together. Equal structures have one program."""

    root: Any
    count: int

    def build(self, leaves: Sequence[Any]) -> Any:
        """The tree as torch has it: every object of its own class, made anew."""
        return _build(self.root, leaves, [])

    def build_pytree(self, leaves: Sequence[Any], *, outputs: bool) -> Any:
        """The tree as JAX has it: objects are containers.

        Among outputs what names its parts, a dataclass or a Hugging Face output, is a plain dict.
        """
        return _pytree(self.root, leaves, outputs)


class Container:
    """A Python object with arrays in place of its tensors: a pytree of JAX.

    Made by :func:`interop.to_pytree`, and by calls of a net whose ``forward`` returns an object;
    passed to a net, ``forward`` gets an object of that class. Attributes are read as those of the
    object. What is no array, its class among it, is static.
    """

    def __init__(self, structure: Structure, leaves: Sequence[Any]) -> None:
        self.__dict__.update(_structure=structure, _leaves=tuple(leaves))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_structure", "_leaves"):
            raise AttributeError(f"a container has no attribute {name!r}")
        return getattr(self._structure.build(self._leaves), name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a container is not changed in place: make it from an object anew")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *dir(self._structure.build(self._leaves))]

    def __repr__(self) -> str:
        shapes = [getattr(x, "shape", x) for x in self._leaves]
        return f"Container({self._structure.root.kind.__name__}, arrays of {shapes})"


jax.tree_util.register_pytree_node(
    Container, lambda c: (c._leaves, c._structure), lambda structure, x: Container(structure, x)
)


def is_array(leaf: Any) -> bool:
    """An input of a net, or what is mistaken for one."""
    kinds = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, torch.Tensor)
    return isinstance(leaf, kinds)


def to_pytree(tree: Any, *, downcast: bool = False) -> Any:
    """A pytree of JAX of what holds torch tensors: caches of Hugging Face, for one.

    Args:
        tree: lists, tuples, dicts, dataclasses and objects of any class, whose tensors have any
            shape and any dtype that JAX has; Python numbers and strings stay as they are.
        downcast: turn 64-bit dtypes into 32-bit ones, as in :func:`interop.to_array`. Integers
            whose values fit, as lengths do, need no permission.

    Returns:
        The same with arrays for tensors, bit for bit; an object is a ``Container``, whose arrays
        JAX maps over and whose other attributes are static.

    Raises:
        TypeError: JAX has not a tensor's dtype.
        ConversionError: a dtype has 64 bits and JAX's x64 mode is off.

    Example:
        >>> import torch, interop
        >>> class Cache:
        ...     def __init__(self):
        ...         self.keys, self.full = torch.zeros(2, 3), False
        >>> interop.to_pytree({"cache": Cache()})
        {'cache': Container(Cache, arrays of [(2, 3)])}
    """
    tensors, structure = flatten(tree, lambda x: isinstance(x, torch.Tensor))
    x64 = bool(jax.config.read("jax_enable_x64"))
    arrays = [
        to_array(x, downcast=not x64 and (downcast or x.dtype is torch.int64)) for x in tensors
    ]
    return structure.build_pytree(arrays, outputs=False)


def flatten(tree: Any, is_leaf: Callable[[Any], bool]) -> tuple[list[Any], Structure]:
    """The leaves of a tree, and the structure that holds them.

    A tensor that is held twice is one leaf, as a write into one is a write into both; arrays are
    values, so each is a leaf of its own.
    """
    walk = _Walk(is_leaf)
    root = walk.node(tree)
    return walk.leaves, Structure(root, len(walk.leaves))


# ---- nodes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Leaf:
    index: int


@dataclass(frozen=True)
class _Constant:
    """Told by ``key``: 0.0 is not -0.0, nor 0, nor False."""

    key: Any
    value: Any = field(compare=False)


@dataclass(frozen=True)
class _Node:
    """A list, tuple, dict, or dataclass; ``names`` are a mapping's keys, or fields."""

    kind: type
    names: tuple[Any, ...] | None
    children: tuple[Any, ...]
    context: _Constant | None = None  # that of torch's registry of pytrees


@dataclass(frozen=True)
class _Object:
    """An object by its attributes; the first in a container has the others inside."""

    kind: type
    names: tuple[str, ...]
    children: tuple[Any, ...]


@dataclass(frozen=True)
class _Again:
    """An object of the same container that was met before."""

    number: int


@dataclass(frozen=True)
class _Contained:
    """A container, and which leaves of the whole are its own."""

    structure: Structure
    leaves: tuple[int, ...]


_PLAIN = (list, tuple, dict, OrderedDict)
_STATIC = (
    type(None), bool, int, float, complex, str, bytes, range, slice, enum.Enum, type,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType,
)  # fmt: skip


class _Walk:
    """Over one tree; ``inside`` an object, other objects belong to it."""

    def __init__(self, is_leaf: Callable[[Any], bool], *, inside: bool = False) -> None:
        self._is_leaf, self._inside = is_leaf, inside
        self._numbers: dict[int, int] = {}
        self._places: dict[int, int] = {}
        self._open: set[int] = set()
        self.leaves: list[Any] = []

    def node(self, value: Any) -> Any:
        if self._is_leaf(value):
            return _Leaf(self._place(value))
        if isinstance(value, Container):
            return self._contained(value._structure, value._leaves)
        if isinstance(value, Static):
            return value
        if isinstance(value, torch.nn.Module):
            raise ConversionError(
                f"a {type(value).__name__} is passed to forward or returned by it: a module is an "
                "attribute of the module that calls it"
            )
        if isinstance(value, _STATIC):
            if isinstance(value, types.MethodType) and id(value.__self__) in self._numbers:
                raise ConversionError(
                    f"a {type(value.__self__).__name__} has its own method {value.__name__} as an "
                    "attribute, which a copy cannot have: define it in the class"
                )
            return _constant(value)
        if id(value) in self._open:
            raise ConversionError(f"a {type(value).__name__} among the inputs holds itself")
        if _is_object(value):
            return self._object(value)
        self._open.add(id(value))
        try:
            return self._node(value)
        finally:
            self._open.discard(id(value))

    def _node(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, Mapping):
            context = _context(value) if kind not in _PLAIN else None
            return _Node(kind, tuple(value), tuple(map(self.node, value.values())), context)
        if kind in _PLAIN or isinstance(value, tuple):
            return _Node(kind, getattr(kind, "_fields", None), tuple(map(self.node, value)))
        if dataclasses.is_dataclass(value):
            names = tuple(_attributes(value))
            return _Node(kind, names, tuple(self.node(getattr(value, n)) for n in names))
        if kind in pytree.SUPPORTED_NODES:
            children, _ = pytree.SUPPORTED_NODES[kind].flatten_fn(value)
            return _Node(kind, None, tuple(map(self.node, children)), _context(value))
        if isinstance(value, Iterator):
            raise ConversionError(f"an input is a {kind.__name__}, read once: pass a list")
        return _constant(value)

    def _object(self, value: Any) -> Any:
        if not self._inside:
            inner = _Walk(self._is_leaf, inside=True)
            root = inner.node(value)
            return self._contained(Structure(root, len(inner.leaves)), inner.leaves)
        if id(value) in self._numbers:
            return _Again(self._numbers[id(value)])
        self._numbers[id(value)] = len(self._numbers)
        names = tuple(_attributes(value))
        return _Object(type(value), names, tuple(self.node(getattr(value, n)) for n in names))

    def _contained(self, structure: Structure, leaves: Sequence[Any]) -> _Contained:
        return _Contained(structure, tuple(map(self._place, leaves)))

    def _place(self, leaf: Any) -> int:
        if isinstance(leaf, torch.Tensor) and id(leaf) in self._places:
            return self._places[id(leaf)]
        self._places[id(leaf)] = len(self.leaves)
        self.leaves.append(leaf)
        return self._places[id(leaf)]


def _is_object(value: Any) -> bool:
    """Whether it is decomposed by its attributes, into a container."""
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return False
    return hasattr(value, "__dict__") and not dataclasses.is_dataclass(value)


def _attributes(value: Any) -> list[str]:
    own = list(getattr(value, "__dict__", ()))
    if not dataclasses.is_dataclass(value):
        return own
    fields = [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]
    return [*fields, *(n for n in own if n not in fields)]


def _context(value: Any) -> _Constant | None:
    known = pytree.SUPPORTED_NODES.get(type(value))
    return None if known is None else _constant(known.flatten_fn(value)[1])


def _constant(value: Any) -> _Constant:
    return _Constant((type(value), _frozen(value)), value)


def _frozen(value: Any) -> Any:
    """By value where that can be told, else by identity; the constant keeps it alive."""
    if isinstance(value, float | complex):
        return type(value), repr(value)
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, dict):
        return type(value), tuple((k, _frozen(v)) for k, v in value.items())
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


# ---- back ----------------------------------------------------------------------------------------


def _build(node: Any, leaves: Sequence[Any], made: list[Any]) -> Any:
    if isinstance(node, _Leaf):
        return leaves[node.index]
    if isinstance(node, Static):
        return node.tensor
    if isinstance(node, _Constant):
        return set(node.value) if isinstance(node.value, set) else node.value
    if isinstance(node, _Again):
        return made[node.number]
    if isinstance(node, _Contained):
        return node.structure.build([leaves[i] for i in node.leaves])
    if isinstance(node, _Object):
        made.append(_empty(node.kind))
        return _with_attributes(made[-1], node, leaves, made)
    children = [_build(child, leaves, made) for child in node.children]
    return _of_kind(node, children)


def _with_attributes(value: Any, node: Any, leaves: Sequence[Any], made: list[Any]) -> Any:
    for name, child in zip(node.names, node.children, strict=True):
        object.__setattr__(value, name, _build(child, leaves, made))
    return value


def _of_kind(node: _Node, children: list[Any]) -> Any:
    """A container of torch's side."""
    kind: Any = node.kind
    if kind is list:
        return children
    if node.context is not None:
        return pytree.SUPPORTED_NODES[kind].unflatten_fn(children, node.context.value)
    if issubclass(kind, dict):
        value = _empty(kind)
        store = OrderedDict if issubclass(kind, OrderedDict) else dict
        for name, child in zip(node.names or (), children, strict=True):
            store.__setitem__(value, name, child)
        return value
    if issubclass(kind, tuple):
        # Past its own __new__, which may ask things of tensors; a result of torch has but that.
        return tuple.__new__(kind, children) if node.names is not None else kind(children)
    if issubclass(kind, Mapping):
        return kind(dict(zip(node.names or (), children, strict=True)))
    value = _empty(kind)
    for name, child in zip(node.names or (), children, strict=True):
        object.__setattr__(value, name, child)
    return value


def _empty(kind: Any) -> Any:
    """An object without attributes, whose ``__init__`` is not called."""
    return kind.__new__(kind)


def _pytree(node: Any, leaves: Sequence[Any], outputs: bool) -> Any:
    if isinstance(node, _Contained):
        return Container(node.structure, [leaves[i] for i in node.leaves])
    if isinstance(node, Static):
        return node
    if not isinstance(node, _Node):
        return _build(node, leaves, [])
    children = [_pytree(child, leaves, outputs) for child in node.children]
    kind: Any = node.kind
    if kind in (list, tuple):
        return kind(children)
    if issubclass(kind, tuple):
        named = hasattr(kind, "_fields")
        return tuple.__new__(kind, children) if named else tuple(children)
    if kind in _PLAIN:
        return kind(zip(node.names or (), children, strict=True))
    if not outputs:
        return _of_kind(node, children)
    return tuple(children) if node.names is None else dict(zip(node.names, children, strict=True))

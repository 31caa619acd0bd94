"""State dicts to flat dicts of arrays and back; nested pytrees to dotted names and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import torch

from interop.arrays import to_array, to_tensor
from interop.memory import memory

__all__ = ["flatten_names", "from_state_dict", "to_state_dict", "unflatten_names"]

_ESCAPE = "\\"


def from_state_dict(
    state_dict: Mapping[str, torch.Tensor], *, downcast: bool = False
) -> dict[str, jax.Array]:
    """A torch ``state_dict`` as a dict of arrays with exactly its keys, bit for bit.

    Args:
        state_dict: name to tensor, each of shape (*axes), any dtype that JAX has.
        downcast: turn 64-bit dtypes into 32-bit ones, as in :func:`interop.to_array`.

    Returns:
        Name to array. Names of one tensor (tied weights) name one array.

    Raises:
        TypeError: a value is no dense tensor (extra state of a module), or JAX has not its dtype.
        ConversionError: a dtype has 64 bits and JAX's x64 mode is off.

    Example:
        >>> import torch
        >>> import interop
        >>> params = interop.from_state_dict(torch.nn.Linear(2, 3).state_dict())
        >>> {name: array.shape for name, array in params.items()}
        {'weight': (3, 2), 'bias': (3,)}
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict: expected a dict of tensors, got {type(state_dict).__name__}"
            + ("; pass module.state_dict()" if isinstance(state_dict, torch.nn.Module) else "")
        )
    made: dict[Any, jax.Array] = {}
    arrays: dict[str, jax.Array] = {}
    # All live until the end: memory that one has left may be another's, and would pass for a tie.
    for name, tensor in dict(state_dict).items():
        view = memory(tensor) if isinstance(tensor, torch.Tensor) else None
        if view is None or view not in made:
            array = to_array(tensor, name=name, downcast=downcast)
            if view is not None:
                made[view] = array
        else:
            array = made[view]
        arrays[name] = array
    return arrays


def to_state_dict(tree: Any, *, separator: str = ".") -> dict[str, torch.Tensor]:
    """A pytree of arrays as what ``module.load_state_dict`` takes: dotted names to tensors.

    Args:
        tree: a flat dict named as in ``state_dict``, or a nested pytree; leaves are JAX or numpy
            arrays of any shape.
        separator: what joins the keys of a nested tree.

    Returns:
        Name to a CPU tensor of its own memory; one array under several names gives one tensor, as
        tied weights are in torch.

    Raises:
        TypeError: a leaf is no array, or torch has not its dtype.
        ValueError: names are ambiguous, as in :func:`flatten_names`.

    Example:
        >>> import jax.numpy as jnp
        >>> import interop
        >>> interop.to_state_dict({"layer": {"bias": jnp.zeros(2)}})
        {'layer.bias': tensor([0., 0.])}
    """
    made: dict[int, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, array in flatten_names(tree, separator=separator).items():
        if id(array) not in made:
            made[id(array)] = to_tensor(array, name=name)
        tensors[name] = made[id(array)]
    return tensors


def flatten_names(tree: Any, *, separator: str = ".") -> dict[str, Any]:
    """A nested pytree as one flat dict, keys joined by ``separator``, in the tree's own order.

    A dict that is flat already is returned as it is, whatever its names contain. Elements of lists
    and tuples are named by their index, fields by their names. Containers without leaves have no
    name and are left out. In a nested tree, a backslash comes before each separator that is part
    of a key, so that :func:`unflatten_names` gives the keys back; and before each backslash of a
    key that would otherwise be taken for such a one.

    Args:
        tree: any nesting of dicts, lists, tuples and registered pytrees.
        separator: what joins the keys: a string without backslashes.

    Returns:
        Name to leaf.

    Raises:
        TypeError: the tree is a single leaf, or a key is neither a string nor an integer.
        ValueError: two leaves get one name.

    Example:
        >>> import interop
        >>> interop.flatten_names({"layers": [{"scale": 1.0}, {"scale": 2.0}], "step": 3})
        {'layers.0.scale': 1.0, 'layers.1.scale': 2.0, 'step': 3}
        >>> print(*interop.flatten_names({"0.weight": {"loc": 1.0, "scale": 2.0}}))
        0\\.weight.loc 0\\.weight.scale
    """
    _check_separator(separator)
    if _is_leaf(tree):
        raise TypeError(f"expected a tree of named leaves, got {type(tree).__name__} alone")
    if _is_flat(tree):
        return dict(tree)
    flat: dict[str, Any] = {}
    for path, leaf in _walk(tree, ()):
        name = _joined(path, separator)
        if name in flat:
            raise ValueError(f"two leaves are both named {name!r}: rename one (is 0 beside '0'?)")
        flat[name] = leaf
    return flat


def unflatten_names(flat: Mapping[str, Any], *, separator: str = ".", like: Any = None) -> Any:
    """Nested dicts of a flat dict, names split at ``separator``; or a tree like another.

    What :func:`flatten_names` made of lists and tuples becomes dicts with the keys "0", "1", …; of
    empty containers nothing is left. ``like`` gives all of them back.

    Args:
        flat: name to leaf. A separator behind a backslash is part of a key.
        separator: as for :func:`flatten_names`.
        like: a pytree whose containers the result has, and whose leaves have the names of ``flat``.

    Raises:
        TypeError: ``flat`` is no dict, or a name no string.
        ValueError: a name is both a leaf and the beginning of another, or two give the same keys;
            or names differ from those of ``like``.

    Example:
        >>> import interop
        >>> interop.unflatten_names({"layer.weight": 1, "layer.bias": 2, "step": 3})
        {'layer': {'weight': 1, 'bias': 2}, 'step': 3}
        >>> interop.unflatten_names({"scale.0": 1, "scale.1": 2}, like={"scale": (0, 0), "b": {}})
        {'b': {}, 'scale': (1, 2)}
    """
    _check_separator(separator)
    if not isinstance(flat, Mapping):
        raise TypeError(f"expected a dict of names, got {type(flat).__name__}")
    if like is not None:
        return _like(flat, like, separator)
    tree: dict[str, Any] = {}
    # Containers that this function made, so that a dict given as a leaf is not taken for one.
    nodes: dict[tuple[str, ...], dict[str, Any]] = {(): tree}
    leaves: set[tuple[str, ...]] = set()
    for name, leaf in flat.items():
        if not isinstance(name, str):
            raise TypeError(f"expected names that are strings, got {name!r}")
        path = tuple(_split(name, separator))
        for depth in range(1, len(path)):
            if path[:depth] in leaves:
                _refuse_prefix(separator.join(path[:depth]), name)
            if path[:depth] not in nodes:
                nodes[path[:depth]] = nodes[path[: depth - 1]][path[depth - 1]] = {}
        if path in nodes:
            inner = next(n for n in flat if tuple(_split(n, separator))[: len(path)] == path)
            _refuse_prefix(name, inner)
        if path in leaves:
            raise ValueError(f"{name!r} and another name have the same keys {path}: rename one")
        leaves.add(path)
        nodes[path[:-1]][path[-1]] = leaf
    return tree


def _check_separator(separator: str) -> None:
    if not isinstance(separator, str) or not separator:
        raise ValueError(f"separator: expected a string of at least one sign, got {separator!r}")
    if _ESCAPE in separator:
        raise ValueError(f"separator: expected one without a backslash, got {separator!r}")


def _split(name: str, separator: str) -> list[str]:
    """The keys that a name joins; a backslash guards a separator's first sign, and a backslash."""
    if _ESCAPE not in name:
        return name.split(separator)
    keys = [""]
    at = 0
    while at < len(name):
        if name[at] == _ESCAPE and name[at + 1 : at + 2] in (_ESCAPE, separator[0]):
            keys[-1] += name[at + 1]
            at += 2
        elif name.startswith(separator, at):
            keys.append("")
            at += len(separator)
        else:
            keys[-1] += name[at]
            at += 1
    return keys


def _joined(path: tuple[str, ...], separator: str) -> str:
    return separator.join(_escaped(key, separator) for key in path)


def _escaped(key: str, separator: str) -> str:
    """The key itself wherever splitting gives it back, whatever comes after it."""
    if _split(key + separator, separator) == [key, ""]:
        return key
    for sign in (_ESCAPE, separator[0]):
        key = key.replace(sign, _ESCAPE + sign)
    return key


def _like(flat: Mapping[str, Any], like: Any, separator: str) -> Any:
    pairs, structure = jax.tree_util.tree_flatten_with_path(like, is_leaf=_is_leaf)
    flat_already = _is_flat(like)
    names = [
        _key(path[0]) if flat_already else _joined(tuple(str(_key(e)) for e in path), separator)
        for path, _ in pairs
    ]
    missing, unknown = set(names).difference(flat), set(flat).difference(names)
    if missing or unknown or len(set(names)) < len(names):
        told = [f"{what}: {', '.join(map(repr, sorted(which)[:5]))}" for what, which in
                (("missing", missing), ("unknown", unknown)) if which]  # fmt: skip
        raise ValueError(
            f"the names are not those of like ({'; '.join(told) or 'two leaves have one name'}): "
            "pass a tree of the structure that was saved"
        )
    return jax.tree_util.tree_unflatten(structure, [flat[name] for name in names])


def _refuse_prefix(name: str, longer: str) -> None:
    raise ValueError(
        f"'{name}' is a leaf and also the beginning of '{longer}', so the names do not nest: "
        "rename one, or keep the dict flat"
    )


def _is_flat(tree: Any) -> bool:
    return isinstance(tree, Mapping) and all(
        isinstance(name, str) and _is_leaf(leaf) for name, leaf in tree.items()
    )


def _is_leaf(node: Any) -> bool:
    # None is a leaf here, as dropping it would lose a name; any mapping is none, registered or not.
    if isinstance(node, Mapping):
        return False
    return node is None or jax.tree_util.all_leaves([node])


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if _is_leaf(node):
        yield path, node
        return
    for key, child in _children(node):
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise TypeError(
                f"expected keys that are strings or integers, got {key!r} at {'/'.join(path)!r}"
            )
        yield from _walk(child, (*path, str(key)))


def _children(node: Any) -> list[tuple[Any, Any]]:
    """One level: keys and children, dicts in their own order rather than sorted as JAX does."""
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    pairs, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(_key(path[0]), child) for path, child in pairs]


def _key(entry: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)

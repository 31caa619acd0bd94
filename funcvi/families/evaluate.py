"""Params to distributions: walk the tree, map each leaf, call each constructor."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcvi.families.parameter import MISSING
from funcvi.families.slots import Choice, Fixed, Free, JointNode, Node, Tied
from funcvi.joints import joint_like

__all__ = ["Evaluation", "learned_names"]

_NODES = (Node, Choice, JointNode)


class Evaluation:
    """One call of a family: its tree and the params given, with values made when asked for.

    Lazy, because a tied parameter may point anywhere in the tree and a bound may depend on a
    sibling; ``_pending`` turns a circle of such references into an error.
    """

    def __init__(self, root: Any, params: Any) -> None:
        self._root, self._params = root, params
        self._values: dict[tuple[Any, ...], Any] = {}
        self._pending: list[tuple[Any, ...]] = []

    def build(self) -> Any:
        """The distribution or joint of the whole tree."""
        return self._build(self._root, self._params, ())

    def _build(self, node: Any, params: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(node, Fixed):
            return node.value
        if isinstance(node, JointNode):
            given = _joint_params(node, params, path)
            members = {
                key: self._build(member, given[key], (*path, key))
                for key, member in node.members.items()
            }
            return joint_like(node.kind, members)
        node = _chosen(node, params, path)
        if node.recipe.transparent is None:
            _check_keys(node, params, path)
        siblings = Siblings(self, node, params, path)
        arguments: dict[str, Any] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, slot in node.slots.items():
            if isinstance(slot, _NODES):
                inner, inner_path = _descend(node, name, params, path)
                arguments[name] = self._build(slot, inner, inner_path)
                continue
            if isinstance(slot, Fixed) and slot.value is None:
                continue
            argument, value, batch_shape = siblings.resolve(name)
            arguments[argument] = value
            if batch_shape is not None:
                shapes[name] = batch_shape
        _check_batch_shapes(shapes, path)
        return node.recipe.build(**arguments)

    def value(
        self, node: Node, params: Any, path: tuple[Any, ...], name: str
    ) -> tuple[str, Any, tuple[int, ...] | None]:
        """(constructor argument, value, batch shape or None) of one parameter, made once."""
        where = (*path, name)
        if where in self._pending:
            circle = " -> ".join(map(_dotted, [*self._pending, where]))
            raise ValueError(f"parameters are tied in a circle: {circle}; free one of them.")
        if where not in self._values:
            self._pending.append(where)
            self._values[where] = self._make(node, params, path, name)
            self._pending.pop()
        return self._values[where]

    def _make(
        self, node: Node, params: Any, path: tuple[Any, ...], name: str
    ) -> tuple[str, Any, tuple[int, ...] | None]:
        slot = node.slots[name]
        if isinstance(slot, Fixed):
            if slot.value is MISSING:
                raise ValueError(
                    f"{node.recipe.name} needs {name!r}, and it is not learned: "
                    f"fv.family({node.recipe.name}, {name}=...) fixes it."
                )
            return slot.argument or name, slot.value, _fixed_batch_shape(slot)
        if isinstance(slot, Tied):
            argument, value, shape = self._source(node, params, path, slot.source, name)
            if slot.function is not None:
                return name, slot.function(value), None
            # A covariance tied to a covariance is carried as its factor, like its source.
            return name if argument == slot.source.split(".")[-1] else argument, value, shape
        leaf = _leaf(params[name], slot, (*path, name))
        bijection = resolve_bijection(slot, Siblings(self, node, params, path))
        event_dim = bijection.domain.event_dim
        if leaf.ndim < event_dim:
            raise ValueError(
                f"{_dotted((*path, name))} needs {event_dim} event dimension(s), got shape "
                f"{leaf.shape}: give an array of shape (*batch, *event)."
            )
        return slot.argument or name, bijection(leaf), leaf.shape[: leaf.ndim - event_dim]

    def tied_to(self, node: Node, slot: Tied, path: tuple[Any, ...]) -> tuple[str, Any]:
        """(constructor argument, value) that a dotted tie gives the parameter at ``path``."""
        argument, value, _ = self._source(node, None, path[:-1], slot.source, str(path[-1]))
        return argument, value if slot.function is None else slot.function(value)

    def _source(
        self, node: Node, params: Any, path: tuple[Any, ...], source: str, name: str
    ) -> tuple[str, Any, tuple[int, ...] | None]:
        if source in node.slots:
            return self.value(node, params, path, source)
        here, given, where = self._root, self._params, ()
        *steps, last = source.split(".")
        for step in steps:
            here, given, where = _step(here, given, where, step, source)
        while isinstance(here, (Choice, Node)):
            here = _chosen(here, given, where)
            if last in here.slots or here.recipe.transparent is None:
                break
            here = here.slots[here.recipe.transparent]
        if not isinstance(here, Node) or last not in here.slots:
            raise ValueError(
                f"{_dotted((*path, name))} is tied to {source!r}, which does not exist: "
                "name a sibling, or give a dotted path from the top of the family."
            )
        return self.value(here, given, where, last)


class Siblings(Mapping[str, Any]):
    """The constrained values beside a parameter, by parameter or by constructor argument."""

    def __init__(self, run: Evaluation, node: Node, params: Any, path: tuple[Any, ...]) -> None:
        self._run, self._node, self._params, self._path = run, node, params, path

    def resolve(self, name: str) -> tuple[str, Any, tuple[int, ...] | None]:
        return self._run.value(self._node, self._params, self._path, name)

    def __getitem__(self, name: str) -> Any:
        if name not in self._node.slots:
            name = next(
                n for n, s in self._node.slots.items() if getattr(s, "argument", None) == name
            )
        return self.resolve(name)[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._node.slots)

    def __len__(self) -> int:
        return len(self._node.slots)


def resolve_bijection(slot: Free, siblings: Mapping[str, Any]) -> Any:
    """The slot's Transform; a function of the siblings is called with them."""
    bijection = slot.bijection
    return bijection if hasattr(bijection, "domain") else bijection(siblings)


def learned_names(node: Node) -> list[str]:
    """The keys of this node's params: what is learned here or somewhere below."""
    return [name for name, slot in node.slots.items() if has_params(slot)]


def has_params(slot: Any) -> bool:
    """Whether anything is learned in or below this slot."""
    if isinstance(slot, Node):
        return any(has_params(s) for s in slot.slots.values())
    if isinstance(slot, Choice):
        return any(has_params(option) for option in slot.options)
    if isinstance(slot, JointNode):
        return any(has_params(member) for member in slot.members.values())
    return isinstance(slot, Free)


def _descend(node: Node, name: str, params: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    if node.recipe.transparent == name:
        return params, path
    return params.get(name, {}), (*path, name)


def _step(here: Any, given: Any, where: Any, step: str, source: str) -> tuple[Any, Any, Any]:
    """One step down a dotted path, through joints, transparent wrappers, dicts and lists."""
    if isinstance(here, JointNode):
        for key, member in here.members.items():
            if str(key) == step:
                return member, given[key], (*where, key)
    else:
        node = _chosen(here, given, where)
        if step in node.slots:
            inner, inner_where = _descend(node, step, given, where)
            return node.slots[step], inner, inner_where
        if node.recipe.transparent is not None:
            return _step(node.slots[node.recipe.transparent], given, where, step, source)
    raise ValueError(f"no {step!r} on the path {source!r}: give a dotted path from the top.")


def _chosen(node: Any, params: Any, path: tuple[Any, ...]) -> Node:
    """The parameterisation whose names are those of the params."""
    if not isinstance(node, Choice):
        return node
    if not isinstance(params, Mapping):
        raise _not_a_dict(params, path)
    for option in node.options:
        if set(learned_names(option)) == set(params):
            return option
    listed = " or ".join(str(learned_names(option)) for option in node.options)
    raise ValueError(
        f"params{_at(path)} of {node.options[0].recipe.name} must be named {listed}; "
        f"got {sorted(map(str, params))}."
    )


def _check_keys(node: Node, params: Any, path: tuple[Any, ...]) -> None:
    if not isinstance(params, Mapping):
        raise _not_a_dict(params, path)
    expected = learned_names(node)
    if set(params) == set(expected):
        return
    missing = [n for n in expected if n not in params]
    unknown = [str(n) for n in params if n not in expected]
    said = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
    held = [n for n in unknown if n in node.slots]
    hint = f"; {held} is held or tied, not learned" if held else ""
    raise ValueError(
        f"params{_at(path)} of {node.recipe.name} must be named {expected}: "
        f"{' and '.join(said)}{hint}."
    )


def _joint_params(node: JointNode, params: Any, path: tuple[Any, ...]) -> Any:
    if not has_params(node) and not params:
        return {key: {} for key in node.members}
    if node.kind is dict:
        if not isinstance(params, Mapping):
            raise _not_a_dict(params, path)
        if set(params) != set(node.members):
            raise ValueError(
                f"params{_at(path)} of a joint must be named {sorted(map(str, node.members))}; "
                f"got {sorted(map(str, params))}."
            )
        return params
    if not isinstance(params, (tuple, list)):
        raise TypeError(
            f"params{_at(path)} of a joint of {len(node.members)} must be a "
            f"{node.kind.__name__}, got {type(params).__name__}."
        )
    _check_length(params, node.members, path)
    return params


def _check_length(given: Any, expected: Any, path: tuple[Any, ...]) -> None:
    if len(given) != len(expected):
        raise ValueError(f"params{_at(path)} must have {len(expected)} entries, got {len(given)}.")


def _leaf(value: Any, slot: Free, path: tuple[Any, ...]) -> jax.Array:
    dtype = getattr(value, "dtype", None)
    if not (
        isinstance(value, float) or (dtype is not None and jnp.issubdtype(dtype, jnp.floating))
    ):
        got = f"{dtype} array" if dtype is not None else type(value).__name__
        raise TypeError(
            f"params{_at(path)} must be a floating-point array of unconstrained values, got {got}: "
            "write 0.0 for 0, or use .inverse(distribution) to get params."
        )
    leaf = jnp.asarray(value)
    shape = slot.shape
    if shape is not None and (
        leaf.ndim < len(shape) or leaf.shape[leaf.ndim - len(shape) :] != shape
    ):
        raise ValueError(
            f"params{_at(path)} must have shape (*batch, {', '.join(map(str, shape))}), "
            f"got {leaf.shape}."
        )
    return leaf


def _fixed_batch_shape(slot: Fixed) -> tuple[int, ...] | None:
    if slot.event_dim is None or slot.argument is not None or slot.value is None:
        return None
    shape = np.shape(slot.value)
    return shape[: len(shape) - slot.event_dim]


def _check_batch_shapes(shapes: dict[str, tuple[int, ...]], path: tuple[Any, ...]) -> None:
    """Parameters may broadcast to the shape of one of them, not to one that none of them has.

    (N,) against (N, 1) would silently make N x N distributions.
    """
    distinct = set(shapes.values())
    if len(distinct) < 2:
        return
    try:
        together = np.broadcast_shapes(*distinct)
    except ValueError:
        together = None
    if together not in distinct:
        listed = ", ".join(f"{n} {s}" for n, s in shapes.items())
        outcome = "do not broadcast" if together is None else f"would broadcast to {together}"
        raise ValueError(
            f"batch shapes of the params{_at(path)} {outcome}: {listed}. Give them one shape "
            "(jnp.broadcast_to) if that is meant."
        )


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(p) for p in path)


def _at(path: tuple[Any, ...]) -> str:
    return f" {_dotted(path)!r}" if path else ""


def _not_a_dict(params: Any, path: tuple[Any, ...]) -> TypeError:
    return TypeError(
        f"params{_at(path)} must be a dict of unconstrained arrays, got {type(params).__name__}: "
        "use .inverse(distribution) to get one."
    )

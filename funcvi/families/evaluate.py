"""Params to distributions: walk the tree, map each leaf, call each constructor."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcvi._checks import check_not_fit
from funcvi._types import Joint, Params
from funcvi.families.roles import (
    Choice,
    Fixed,
    Learned,
    Members,
    Nested,
    Path,
    Role,
    Tied,
    Tree,
    has_params,
    learned_names,
)
from funcvi.families.signatures import MISSING, Shape, shape_of
from funcvi.joints import joint_like

__all__ = ["Evaluation", "dotted_path", "place"]


class Made(NamedTuple):
    """A constructor argument: the keyword that takes it, its value, its batch shape if known."""

    keyword: str
    value: object
    batch: Shape | None = None


class Evaluation:
    """One call of a family: each value is made when something asks for it, and once.

    A tied parameter may point anywhere in the tree and a bound may depend on a sibling; ``pending``
    turns a circle of such references into an error.
    """

    def __init__(self, tree: Tree, params: Params) -> None:
        self._tree, self._params = tree, params
        self._made: dict[Path, Made] = {}
        self._pending: list[Path] = []

    def build(self) -> Joint:
        """The distribution or joint of the whole tree."""
        check_not_fit(self._params, "a family")
        return self._build(self._tree, self._params, ())

    def _build(self, tree: Tree, params: Params, path: Path) -> Joint:
        if isinstance(tree, Fixed):
            return tree.value
        if isinstance(tree, Members):
            by_key = _member_params(tree, params, path)
            members = {
                key: self._build(member, by_key[key], (*path, key))
                for key, member in tree.members.items()
            }
            return joint_like(tree.kind, members)
        node = _chosen(tree, params, path)
        signature = node.signature
        if signature.transparent is None:
            _check_keys(node, params, path)
        arguments: dict[str, object] = {}
        batches: dict[str, Shape] = {}
        for name, role in node.roles.items():
            if isinstance(role, Fixed) and role.value is None:
                continue
            if isinstance(role, (Nested, Choice, Members)):
                inner, inner_path = _descend(node, name, params, path)
                arguments[name] = self._build(role, inner, inner_path)
                continue
            made = self._value(node, params, path, name)
            arguments[made.keyword] = made.value
            if made.batch is not None:
                batches[name] = made.batch
        _check_batches(batches, path)
        return signature.build(**arguments)

    def _value(self, node: Nested, params: Params, path: Path, name: str) -> Made:
        """One parameter of a node."""
        where = (*path, name)
        if where in self._pending:
            circle = " -> ".join(map(dotted_path, [*self._pending, where]))
            raise ValueError(f"parameters are tied in a circle: {circle}; free one of them.")
        if where not in self._made:
            self._pending.append(where)
            self._made[where] = self._make(node, params, path, name)
            self._pending.pop()
        return self._made[where]

    def _make(self, node: Nested, params: Params, path: Path, name: str) -> Made:
        role = node.roles[name]
        constructor = node.signature.name
        match role:
            case Learned():
                return self._learned(role, node, params, path, name)
            case Tied():
                return self.tied(node, params, role, (*path, name))
            case Fixed() if role.value is not MISSING:
                return Made(role.keyword or name, role.value, _fixed_batch(role))
            case Fixed():
                raise ValueError(
                    f"{constructor} needs {name!r}, and it is not learned: "
                    f"fv.family({constructor}, {name}=...) fixes it."
                )
            case _:
                raise ValueError(f"{constructor}.{name} is a distribution: it has no value.")

    def _learned(self, role: Learned, node: Nested, params: Params, path: Path, name: str) -> Made:
        leaf = _leaf(params[name], role, (*path, name))
        bijection = role.at(node.roles, lambda n: self._value(node, params, path, n).value)
        event_dim = bijection.domain.event_dim
        if leaf.ndim < event_dim:
            raise ValueError(
                f"{dotted_path((*path, name))} needs {event_dim} event dimension(s), got shape "
                f"{leaf.shape}: give an array of shape (*batch, *event)."
            )
        if role.shared and role.shape is not None and role.batch is not None:
            # Leading axes that a network adds belong left of the batch that the value is shared by.
            extra = leaf.ndim - len(role.shape)
            missing = len(role.batch) - (len(role.shape) - event_dim)
            if extra and missing > 0:
                leaf = leaf.reshape(leaf.shape[:extra] + (1,) * missing + leaf.shape[extra:])
        keyword = role.carried.keyword if role.carried else name
        return Made(keyword, bijection(leaf), leaf.shape[: leaf.ndim - event_dim])

    def tied(self, node: Nested, params: Params, role: Tied, where: Path) -> Made:
        """The value that a tie gives the parameter at ``where``."""
        name = str(where[-1])
        source = self._source(node, params, role.source, where)
        if role.function is not None:
            return Made(name, role.function(source.value))
        # A covariance tied to a covariance is carried as its factor, like its source.
        own_name = source.keyword == role.source.split(".")[-1]
        return Made(name if own_name else source.keyword, source.value, source.batch)

    def _source(self, node: Nested, params: Params, source: str, where: Path) -> Made:
        if source in node.roles:
            return self._value(node, params, where[:-1], source)
        tree: Role = self._tree
        here: Params = self._params
        path: Path = ()
        *steps, last = source.split(".")
        for step in steps:
            tree, here, path = _step(tree, here, path, step, source)
        owner = _owner(tree, last, here, path)
        if owner is not None:
            return self._value(owner, here, path, last)
        raise ValueError(
            f"{dotted_path(where)} is tied to {source!r}, which does not exist: give a sibling's "
            "name or a dotted path from the top."
        )


def _leaf(value: object, role: Learned, path: Path) -> jax.Array:
    dtype = getattr(value, "dtype", None)
    is_floating = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    if not (isinstance(value, float) or is_floating):
        got = f"{dtype} array" if dtype is not None else type(value).__name__
        raise TypeError(
            f"params{place(path)} must be a floating-point array of unconstrained values, "
            f"got {got}: write 0.0 for 0, or use .inverse(distribution) to get params."
        )
    leaf = jnp.asarray(value)
    shape = role.shape
    if shape is not None and leaf.shape[max(leaf.ndim - len(shape), 0) :] != shape:
        one = ", or fv.shared() for one value" if np.prod(leaf.shape) < np.prod(shape) else ""
        raise ValueError(
            f"params{place(path)} must have shape (*batch, {', '.join(map(str, shape))}), "
            f"got {leaf.shape}: give each element its own{one}."
        )
    return leaf


def _fixed_batch(role: Fixed) -> Shape | None:
    if role.event_dim is None or role.keyword is not None or role.value is None:
        return None
    shape = shape_of(role.value)
    return shape[: len(shape) - role.event_dim]


def _check_batches(batches: Mapping[str, Shape], path: Path) -> None:
    """Parameters may broadcast to the shape of one of them, not to one that none of them has.

    (N,) against (N, 1) would silently make N x N distributions.
    """
    distinct = set(batches.values())
    if len(distinct) < 2:
        return
    try:
        together = np.broadcast_shapes(*distinct)
    except ValueError:
        together = None
    if together not in distinct:
        listed = ", ".join(f"{n} {s}" for n, s in batches.items())
        outcome = "do not broadcast" if together is None else f"would broadcast to {together}"
        raise ValueError(
            f"batch shapes of the params{place(path)} {outcome}: {listed}. Give them one shape "
            "(jnp.broadcast_to) if that is meant."
        )


# ---- finding the params of each node ------------------------------------------------------------


def _descend(node: Nested, name: str, params: Params, path: Path) -> tuple[Params, Path]:
    if node.signature.transparent == name:
        return params, path
    return params.get(name, {}), (*path, name)


def _step(
    tree: Role, params: Params, path: Path, step: str, source: str
) -> tuple[Role, Params, Path]:
    """One step down a dotted path, through joints, transparent wrappers, dicts and lists."""
    if isinstance(tree, Members):
        for key, member in tree.members.items():
            if str(key) == step:
                return member, params[key], (*path, key)
    node = _owner(tree, step, params, path)
    if node is not None:
        return node.roles[step], *_descend(node, step, params, path)
    raise ValueError(
        f"no {step!r} on the path {source!r}: give a dotted path from the top of the family."
    )


def _owner(tree: Role, name: str, params: Params, path: Path) -> Nested | None:
    """The node that has an argument of this name: this one, or one inside transparent wrappers."""
    while isinstance(tree, (Nested, Choice)):
        node = _chosen(tree, params, path)
        if name in node.roles:
            return node
        if node.signature.transparent is None:
            return None
        tree = node.roles[node.signature.transparent]
    return None


def _chosen(tree: Tree, params: Params, path: Path) -> Nested:
    """The parameterisation whose names are those of the params."""
    if isinstance(tree, Nested):
        return tree
    assert isinstance(tree, Choice)
    if not isinstance(params, Mapping):
        raise _not_a_dict(params, path)
    for option in tree.options:
        if set(learned_names(option)) == set(params):
            return option
    listed = " or ".join(str(learned_names(option)) for option in tree.options)
    raise ValueError(
        f"params{place(path)} of {tree.options[0].signature.name} must be named {listed}; "
        f"got {sorted(map(str, params))}."
    )


def _check_keys(node: Nested, params: Params, path: Path) -> None:
    if not isinstance(params, Mapping):
        raise _not_a_dict(params, path)
    expected = learned_names(node)
    if set(params) == set(expected):
        return
    missing = [n for n in expected if n not in params]
    unknown = [str(n) for n in params if n not in expected]
    said = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
    held = [n for n in unknown if n in node.roles]
    hint = f"; {held} is held or tied, not learned" if held else ""
    raise ValueError(
        f"params{place(path)} of {node.signature.name} must be named {expected}: "
        f"{' and '.join(said)}{hint}."
    )


def _member_params(joint: Members, params: Params, path: Path) -> Mapping[Hashable, Params]:
    if not has_params(joint) and not params:
        return {key: {} for key in joint.members}
    if joint.kind is dict:
        if not isinstance(params, Mapping):
            raise _not_a_dict(params, path)
        if set(params) != set(joint.members):
            raise ValueError(
                f"params{place(path)} of a joint must be named {sorted(map(str, joint.members))}; "
                f"got {sorted(map(str, params))}."
            )
        return params
    expected = len(joint.members)
    if not isinstance(params, (tuple, list)):
        raise TypeError(
            f"params{place(path)} of a joint of {expected} must be a {joint.kind.__name__}, "
            f"got {type(params).__name__}."
        )
    if len(params) != expected:
        raise ValueError(f"params{place(path)} must have {expected} entries, got {len(params)}.")
    return dict(enumerate(params))


def dotted_path(path: Path) -> str:
    """``x.scale``: how a parameter is named in messages."""
    return ".".join(map(str, path))


def place(path: Path) -> str:
    """The same after a word; nothing for the top."""
    return f" {dotted_path(path)!r}" if path else ""


def _not_a_dict(params: Params, path: Path) -> TypeError:
    return TypeError(
        f"params{place(path)} must be a dict of unconstrained arrays, got {type(params).__name__}: "
        "use .inverse(distribution) to get one."
    )

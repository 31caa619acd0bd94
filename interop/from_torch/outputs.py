"""What a module returns, as a JAX pytree."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any


def jax_tree(leaves: Sequence[Any], spec: Any) -> Any:
    """``leaves`` in the structure ``spec``: tuples, lists and dicts as they are.

    Other containers that name their parts, as Hugging Face's outputs do, become plain dicts;
    those without names become tuples.
    """
    kept = iter(leaves)

    def build(spec: Any) -> Any:
        if spec.is_leaf():
            return next(kept)
        children = [build(child) for child in spec.children()]
        kind, context = spec.type, spec.context
        if kind is list:
            return children
        if kind is tuple:
            return tuple(children)
        if kind in (dict, OrderedDict):
            return kind(zip(context, children, strict=True))
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return kind(*children)
        if kind.__name__ == "namedtuple":
            return context(*children)
        names = context if isinstance(context, list | tuple) else getattr(context, "keys", None)
        if isinstance(names, list | tuple) and len(names) == len(children):
            return dict(zip(map(str, names), children, strict=True))
        return tuple(children)

    return build(spec)

"""``allow=``: the classes that a pickle may make objects of; none is ever looked up by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from interop.checkpoints.unpickling import Global, Made

__all__ = ["Allowed", "allowed_classes", "make", "members"]

Allowed = Mapping[str, type]


def allowed_classes(allow: Iterable[type] | Mapping[str, type]) -> Allowed:
    """Names as they are in files to classes.

    Raises:
        TypeError: something else than a class.
    """
    if isinstance(allow, Mapping):
        named = dict(allow)
    else:
        given = [allow] if isinstance(allow, type | str) else list(allow)
        named = {
            f"{getattr(c, '__module__', '')}.{getattr(c, '__qualname__', '')}": c for c in given
        }
    for name, kind in named.items():
        if not isinstance(kind, type) or not isinstance(name, str):
            raise TypeError(
                f"allow: expected classes, got {kind!r}: a function would be run, and a name "
                'imported. Pass the class itself, or {"module.Name": Class} if it has moved'
            )
    return named


def class_of(node: Any, allowed: Allowed) -> type | None:
    """The class of the object that a record stands for, if it is allowed."""
    what = node.what if isinstance(node, Made) else node
    return allowed.get(what.path) if isinstance(what, Global) else None


def members(node: Made) -> list[tuple[Any, Any]]:
    """What an object holds: arguments by number, attributes and items by name."""
    args = node.args if isinstance(node.args, tuple) else (node.args,)
    state = node.state if isinstance(node.state, tuple) and len(node.state) == 2 else (node.state,)
    found = [*enumerate(args), *enumerate(node.elements), *node.items]
    for part in (node.kwargs, *state):
        found += part.items() if isinstance(part, dict) else [("state", part)]
    return found


def make(node: Made, kind: type, build: Callable[[Any], Any]) -> Any:
    """The object, as pickle makes it: by the class's own code, from what ``build`` gives."""
    args, kwargs = build(node.args), build(node.kwargs) if node.kwargs else {}
    made: Any = kind.__new__(kind, *args, **kwargs) if node.new else kind(*args, **kwargs)
    if node.has_state:
        state = build(node.state)
        if hasattr(made, "__setstate__"):
            made.__setstate__(state)
        else:
            pair = isinstance(state, tuple) and len(state) == 2
            attributes, slots = state if pair else (state, None)
            if attributes:
                vars(made).update(attributes)
            for name, value in (slots or {}).items():
                setattr(made, name, value)
    for element in node.elements:
        made.add(build(element)) if isinstance(made, set) else made.append(build(element))
    for key, value in node.items:
        made[key] = build(value)
    return made

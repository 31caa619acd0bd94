"""A pickle as inert records: nothing is imported and nothing is called, whatever it asks for."""

import pickletools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

__all__ = ["PLAIN", "Global", "Made", "Persistent", "unpickle", "walk"]

PLAIN = (bool, int, float, complex, str, bytes, type(None))
"""The leaves that a pickle holds by itself."""

# What Python 2 called them.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_VALUES = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_DEEPEST_KEY = 8


@dataclass(eq=False, frozen=True)
class Global:
    """A name that the pickle would import."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Its full name."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """An object that the pickle would make.

    Attributes:
        what: a :class:`Global`, or another record, that would be called.
        args, kwargs: with which arguments.
        new: by ``__new__`` alone.
        state: what its ``__setstate__`` would be given, if ``has_state``.
        items, elements: what would be put into it by key, and appended.
    """

    what: Any
    args: Any = ()
    kwargs: Any = None
    new: bool = False
    state: Any = None
    has_state: bool = False
    # Two opcodes may make one, so it is small: most have neither.
    items: Sequence[tuple[Any, Any]] = ()
    elements: Sequence[Any] = ()


@dataclass(eq=False, frozen=True)
class Persistent:
    """What the pickle leaves to its file: the storage of a tensor."""

    pid: Any


def unpickle(file: BinaryIO | bytes) -> Any:
    """The next pickle of a file: dicts, lists, tuples and plain leaves; records for all else.

    Raises:
        Exception: whatever kind a broken pickle provokes.
    """
    machine = _Machine()
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name in _VALUES:
            machine.stack.append(argument)
        elif name in _CONSTANTS:
            machine.stack.append(_CONSTANTS[name])
        elif name == "STOP":
            return machine.stack.pop()
        elif name not in ("PROTO", "FRAME"):
            getattr(machine, f"do_{name.lower()}")(*([] if argument is None else [argument]))
    raise ValueError("it has no end")


def walk(node: Any, seen: set[int]) -> Iterator[Any]:
    """Every container and record under a node, and itself, each once: ``seen`` has their ids."""
    todo = [node]
    while todo:
        node = todo.pop()
        if isinstance(node, PLAIN) or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, dict):
            todo += [*node, *node.values()]
        elif isinstance(node, list | tuple):
            todo += node
        elif isinstance(node, Made):
            todo += [node.what, node.args, node.kwargs, node.state, node.elements, node.items]
        elif isinstance(node, Persistent):
            todo.append(node.pid)


class _Machine:
    """A method for each opcode; records are made in place of imports and calls."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def _since_mark(self) -> list[Any]:
        found = self.stack
        self.stack = self.marked.pop()
        return found

    def do_mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def do_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def do_pop_mark(self) -> None:
        self._since_mark()

    def do_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def do_memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_put(self, at: int) -> None:
        self.memo[at] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_get(self, at: int) -> None:
        self.stack.append(self.memo[at])

    do_binget = do_long_binget = do_get

    # Texts of Python 2 are bytes of an unknown encoding.
    def do_string(self, text: str) -> None:
        raw = text.encode("latin-1")
        try:
            self.stack.append(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self.stack.append(raw)

    do_binstring = do_short_binstring = do_string

    def do_empty_list(self) -> None:
        self.stack.append([])

    def do_empty_dict(self) -> None:
        self.stack.append({})

    def do_empty_tuple(self) -> None:
        self.stack.append(())

    def do_list(self) -> None:
        found = self._since_mark()
        self.stack.append(found)

    def do_tuple(self) -> None:
        found = self._since_mark()
        self.stack.append(tuple(found))

    def do_tuple1(self) -> None:
        self._last_as_tuple(1)

    def do_tuple2(self) -> None:
        self._last_as_tuple(2)

    def do_tuple3(self) -> None:
        self._last_as_tuple(3)

    def _last_as_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("its stack is empty")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def do_dict(self) -> None:
        found = self._since_mark()
        self.stack.append({})
        self._set(found)

    def do_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def do_setitems(self) -> None:
        found = self._since_mark()
        self._set(found)

    def _set(self, found: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(found[::2], found[1::2], strict=True):
            if isinstance(target, Made):
                target.items = target.items or []
                target.items.append((key, value))  # type: ignore[attr-defined]
            elif isinstance(target, dict):
                target[_key(key)] = value
            else:
                raise ValueError(f"it puts items into a {type(target).__name__}")

    def do_append(self) -> None:
        self._extend([self.stack.pop()])

    def do_appends(self) -> None:
        found = self._since_mark()
        self._extend(found)

    def _extend(self, found: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.elements = target.elements or []
            target.elements.extend(found)  # type: ignore[attr-defined]
        elif isinstance(target, list):
            target.extend(found)
        else:
            raise ValueError(f"it appends to a {type(target).__name__}")

    do_additems = do_appends

    def do_empty_set(self) -> None:
        self.stack.append(Made(Global("builtins", "set")))

    def do_frozenset(self) -> None:
        found = self._since_mark()
        self.stack.append(Made(Global("builtins", "frozenset"), (found,)))

    def do_bytearray8(self, raw: bytearray) -> None:
        self.stack.append(Made(Global("builtins", "bytearray"), (bytes(raw),)))

    def do_persid(self, text: str) -> None:
        self.stack.append(Persistent(text))

    def do_binpersid(self) -> None:
        pid = self.stack.pop()
        # Before torch 1.6, classes came with their source.
        source = type(pid) is tuple and len(pid) > 1 and pid[0] == "module"
        inner = source and isinstance(pid[1], Global)
        self.stack.append(pid[1] if inner else Persistent(pid))

    def do_global(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.stack.append(Global(_RENAMED.get(module, module), name))

    def do_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.do_global(f"{module} {name}")

    def do_ext1(self, code: int) -> None:
        self.stack.append(Global("copyreg", f"extension {code}"))

    do_ext2 = do_ext4 = do_ext1

    def do_reduce(self) -> None:
        args, what = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(what, args))

    def do_inst(self, text: str) -> None:
        args = self._since_mark()
        self.do_global(text)
        self.stack.append(Made(self.stack.pop(), tuple(args)))

    def do_obj(self) -> None:
        what, *args = self._since_mark()
        self.stack.append(Made(what, tuple(args)))

    def do_newobj(self) -> None:
        args, what = self.stack.pop(), self.stack.pop()
        self.stack.append(Made(what, args, new=True))

    def do_newobj_ex(self) -> None:
        kwargs, args, what = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(Made(what, args, kwargs, new=True))

    def do_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Made):
            target.state, target.has_state = state, True
        elif not isinstance(target, dict):  # attributes of an OrderedDict
            raise ValueError(f"it sets the state of a {type(target).__name__}")


def _made(what: Any, args: Any) -> Any:
    """A record; but plain values and dicts that old protocols write as calls are what they are."""
    given = args if isinstance(args, tuple) else (args,)
    simple = _SIMPLE.get(what.path) if isinstance(what, Global) else None
    found = None if simple is None else simple(*given[:2]) if len(given) <= 2 else None
    return Made(what, args) if found is None else found


def _complex(real: Any = 0, imaginary: Any = 0) -> Any:
    parts = all(type(part) in (int, float) for part in (real, imaginary))
    return complex(real, imaginary) if parts else None


def _bytes(*args: Any) -> Any:
    return None if args else b""


def _encoded(text: Any = None, encoding: Any = None) -> Any:
    return text.encode("latin-1") if type(text) is str and encoding == "latin1" else None


def _ordered(*args: Any) -> Any:
    pairs = args[0] if args else []
    if len(args) > 1 or not isinstance(pairs, list):
        return None
    return {_key(key): value for key, value in pairs}


def _counter(*args: Any) -> Any:
    return args[0] if len(args) == 1 and type(args[0]) is dict else None


def _size(*args: Any) -> Any:
    return args[0] if len(args) == 1 and type(args[0]) is tuple else None


def _attribute(owner: Any = None, name: Any = None) -> Any:
    """A class inside a class."""
    inner = isinstance(owner, Global) and type(name) is str
    return Global(owner.module, f"{owner.name}.{name}") if inner else None


_SIMPLE: dict[str, Callable[..., Any]] = {
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "_codecs.encode": _encoded,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "torch.Size": _size,
    "builtins.getattr": _attribute,
}


def _key(key: Any) -> Any:
    """A key whose hash is computed without end or code: records count by identity."""

    def fits(part: Any, depth: int) -> bool:
        if type(part) is tuple:
            return depth > 0 and all(fits(inner, depth - 1) for inner in part)
        return type(part) in (*PLAIN, Made, Global, Persistent)

    return key if fits(key, _DEEPEST_KEY) else Made(Global("builtins", type(key).__name__))

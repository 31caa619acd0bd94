"""Where in the user's own files something happened."""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

_TORCH = str(torch.__path__[0]) + os.sep  # torchvision is the user's own
_INTEROP = str(Path(__file__).parents[1]) + os.sep
_EXPORT = str(Path(__file__).with_name("export.py"))
NOWHERE = "source unknown"
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(.*)')


def source_of(node: Any) -> str:
    """File, line and code of a graph's node: the innermost frame outside torch."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [f for f in frames if not f[0].startswith((_TORCH, _INTEROP, "<"))]
    if not own:
        return _part_of(node)
    file, line, _, code = own[-1]
    return f"{file}:{line}: {code.strip()}"


def _part_of(node: Any) -> str:
    """The innermost part of torch's own that a node was recorded in."""
    parts = [*(node.meta.get("nn_module_stack") or {}).values()]
    if not parts:
        return NOWHERE
    path, kind = parts[-1]
    name = (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
    path = path.removeprefix("module").removeprefix(".")
    return f"in {path!r}, a {name}" if path else f"in a {name}"


def own_part(error: BaseException) -> str:
    """The class of the innermost module whose method an error came from."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    parts = [frame.f_locals.get("self") for frame in frames]
    return [type(x).__name__ for x in parts if isinstance(x, torch.nn.Module)][-1]


def frames_in_export() -> Iterator[FrameType]:
    """The frames of what is exported now, the innermost first, torch's own among them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _EXPORT:
        yield frame
        frame = frame.f_back


def own_line() -> str:
    """File and line of the innermost frame outside torch and interop."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith((_TORCH, _INTEROP, "<")):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return NOWHERE


def own_frame(error: BaseException | None = None) -> str:
    """The innermost frame outside torch and interop, of an error or of now."""
    if error is None:
        frames = traceback.extract_stack(sys._getframe(1))
    else:
        frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        inside = frame.filename.startswith((_TORCH, _INTEROP, "<"))
        if not inside and "contextlib" not in frame.filename:
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return NOWHERE

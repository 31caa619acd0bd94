"""Where in the user's own files something happened."""

import re
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

_TORCH = str(torch.__path__[0])
_INTEROP = str(Path(__file__).parents[1])
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(.*)')


def source_of(node: Any) -> str:
    """File, line and code of a graph's node: the innermost frame outside torch."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [f for f in frames if not f[0].startswith((_TORCH, "<"))] or frames
    if not own:
        return "source unknown"
    file, line, _, code = own[-1]
    return f"{file}:{line}: {code.strip()}"


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
    return "source unknown"

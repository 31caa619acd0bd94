"""Nothing of torch's own on standard error beside a refusal, which says it all."""

import contextlib
import logging
import threading
from collections.abc import Iterator

__all__ = ["quiet"]

_changing = threading.Lock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch's loggers hand no warnings and errors of this thread to their handlers.

    What other threads log passes, as does what ``TORCH_LOGS`` asks for below warnings.
    """
    ours = _OfThisThread()
    handlers = _handlers()
    _replace(handlers, add=ours)
    try:
        yield
    finally:
        _replace(handlers, remove=ours)


class _OfThisThread(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or record.levelno < logging.WARNING


def _handlers() -> list[logging.Handler]:
    """Those of every logger of torch's, each once."""
    found: dict[int, logging.Handler] = {}
    for name in ("torch", *[n for n in logging.root.manager.loggerDict if n.startswith("torch.")]):
        found |= {id(h): h for h in logging.getLogger(name).handlers}
    return list(found.values())


def _replace(
    handlers: list[logging.Handler],
    add: logging.Filter | None = None,
    remove: logging.Filter | None = None,
) -> None:
    """New lists in place of the old ones, which another thread may be reading."""
    with _changing:
        for handler in handlers:
            kept = [f for f in handler.filters if f is not remove]
            handler.filters = kept if add is None else [*kept, add]

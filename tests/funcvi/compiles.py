"""Counts XLA compilations, as JAX itself reports them."""

import contextlib
from dataclasses import dataclass

import jax.monitoring

_EVENT = "/jax/core/compile/backend_compile_duration"
_total = 0


def _listen(event, duration, **_):
    global _total
    _total += event == _EVENT


jax.monitoring.register_event_duration_secs_listener(_listen)


@dataclass
class Count:
    start: int
    compiled: int = 0


@contextlib.contextmanager
def compilations():
    """``with compilations() as c: ...; c.compiled`` is how many programs XLA compiled inside."""
    count = Count(_total)
    yield count
    count.compiled = _total - count.start

"""Models as users of numpyro write them, by theme: the laws of test_models.py run over these."""

from tests.funcvi.models import (
    chains,
    discrete,
    effects,
    hierarchies,
    processes,
    refused,
    regressions,
    supports,
    survival,
    time_series,
)
from tests.funcvi.models.entries import Entry, Refusal

__all__ = ["ENTRIES", "REFUSALS", "Entry", "Refusal"]

_THEMES = (
    hierarchies,
    regressions,
    time_series,
    processes,
    survival,
    discrete,
    chains,
    supports,
    effects,
)
_ENTRIES = [e for theme in _THEMES for e in theme.ENTRIES]
_NAMES = [e.name for e in _ENTRIES]
assert len(set(_NAMES)) == len(_NAMES), [n for n in _NAMES if _NAMES.count(n) > 1]
ENTRIES = {e.name: e for e in _ENTRIES}
REFUSALS = {r.name: r for r in refused.REFUSALS}

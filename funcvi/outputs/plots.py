"""Figures of draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["figure_of"]

_FEW = 6  # entries of a site that are told apart in one panel
_COLUMNS, _WIDTH, _HEIGHT = 3, 3.6, 2.4


def figure_of(values: Mapping[str, np.ndarray]) -> Any:
    """A panel for each site: densities of a few entries, intervals of many.

    Args:
        values: draws by site, of shape (chain, draw, *site).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install matplotlib.") from None

    columns = min(_COLUMNS, len(values))
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (site, draws) in zip(panels, values.items(), strict=False):
        flat = np.asarray(draws).reshape(draws.shape[0] * draws.shape[1], -1)
        entries = [",".join(map(str, i)) for i in np.ndindex(draws.shape[2:])]
        if flat.shape[1] <= _FEW:
            _densities(panel, flat, entries)
        else:
            _intervals(panel, flat)
        panel.set_title(site)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(values) :]:
        panel.set_visible(False)
    return figure


def _densities(panel: Any, flat: np.ndarray, entries: list[str]) -> None:
    low, high = np.quantile(flat, [0.001, 0.999])
    bins = np.linspace(low, high if high > low else low + 1, 60)
    for column, name in zip(flat.T, entries, strict=True):
        panel.hist(column, bins, density=True, histtype="stepfilled", alpha=0.5, label=name or None)
    if len(entries) > 1:
        panel.legend(fontsize="small", frameon=False)
    panel.set_yticks([])


def _intervals(panel: Any, flat: np.ndarray) -> None:
    places = np.arange(flat.shape[1])
    low, inner, middle, outer, high = np.quantile(flat, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    panel.vlines(places, low, high, lw=1)
    panel.vlines(places, inner, outer, lw=3)
    panel.plot(places, middle, "o", ms=3, color="white", mec="black", mew=0.6)
    panel.set_xlabel("entry")

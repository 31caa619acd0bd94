"""Means, spreads and quantiles of draws, as a table."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from funcvi.mixing import mixing

__all__ = ["Row", "Summary", "summary_of"]

_QUANTILES = (0.05, 0.5, 0.95)


class Row(NamedTuple):
    """One entry of a site.

    Attributes:
        mean: of its draws.
        sd: their standard deviation.
        low: their 5 % quantile.
        median: their 50 % quantile.
        high: their 95 % quantile.
        effective_size: of chains: how many independent draws tell as much of its middle and tails;
            NaN for draws of no chain.
        r_hat: of chains: about one where they agree; NaN for draws of no chain.
    """

    mean: float
    sd: float
    low: float
    median: float
    high: float
    effective_size: float
    r_hat: float


@dataclass(frozen=True)
class Summary(Mapping[str, Row]):
    """A row for each entry of each site, by a name such as ``"theta[2]"``; printed, a table."""

    rows: Mapping[str, Row]

    def __getitem__(self, name: str) -> Row:
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        heads = ["mean", "sd", "5%", "50%", "95%", "effective", "R-hat"]
        of_chains = any(not math.isnan(row.r_hat) for row in self.rows.values())
        count = len(heads) if of_chains else len(heads) - 2
        table = [["", *heads[:count]]]
        for name, row in self.rows.items():
            numbers = [f"{x:.3g}" for x in row[:5]]
            chains = [f"{row.effective_size:.0f}", f"{row.r_hat:.3f}"]
            table.append([name, *(numbers + chains)[:count]])
        widths = [max(len(line[i]) for line in table) for i in range(count + 1)]
        lines = (
            [
                line[0].ljust(widths[0]),
                *(x.rjust(w) for x, w in zip(line[1:], widths[1:], strict=True)),
            ]
            for line in table
        )
        return "\n".join("  ".join(line).rstrip() for line in lines)

    __repr__ = __str__


def summary_of(values: Mapping[str, np.ndarray]) -> Summary:
    """Of draws by site, of shape (chain, draw, *site)."""
    rows = {}
    for site, draws in values.items():
        chains, count = draws.shape[:2]
        flat = draws.reshape(chains, count, -1).astype(float)
        all_of = flat.reshape(chains * count, -1)
        quantiles = np.quantile(all_of, _QUANTILES, axis=0)
        middle = all_of.mean(0), all_of.std(0, ddof=1)
        none = np.full(flat.shape[2], np.nan)
        mixed = (none, none)
        if chains > 1:
            found = mixing(flat)
            mixed = (found.effective, found.r_hat)
        for i, index in enumerate(np.ndindex(draws.shape[2:])):
            name = f"{site}[{','.join(map(str, index))}]" if index else site
            if name in rows:
                raise ValueError(f"two sites have an entry {name!r}: rename one of them.")
            rows[name] = Row(*(float(column[i]) for column in (*middle, *quantiles, *mixed)))
    return Summary(rows)

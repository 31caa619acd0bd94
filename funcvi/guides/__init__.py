"""Guides: families of posteriors over the unconstrained space of a target."""

from funcvi.guides.blocks import blocks
from funcvi.guides.contract import Guide, Posterior, check_guide
from funcvi.guides.flow import flow
from funcvi.guides.full_rank import full_rank
from funcvi.guides.general import guide
from funcvi.guides.laplace import laplace
from funcvi.guides.low_rank import low_rank
from funcvi.guides.mean_field import mean_field
from funcvi.guides.mixture import mixture

__all__ = [
    "Guide",
    "Posterior",
    "blocks",
    "check_guide",
    "flow",
    "full_rank",
    "guide",
    "laplace",
    "low_rank",
    "mean_field",
    "mixture",
]

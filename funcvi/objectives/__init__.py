"""Objectives: pure functions whose gradient is right, or that refuse.

``draws`` decides how each distribution is handled; every bound is a short function of its draws.
"""

from funcvi.objectives.draws import Draws, average, bound
from funcvi.objectives.elbo import negative_elbo
from funcvi.objectives.expectation import expectation
from funcvi.objectives.forward_kl import forward_kl
from funcvi.objectives.importance_weighted import (
    importance_weighted_elbo,
    negative_importance_weighted_elbo,
)
from funcvi.objectives.kl import kl
from funcvi.objectives.of_guides import GuideLoss
from funcvi.objectives.renyi import negative_renyi_elbo

__all__ = [
    "Draws",
    "GuideLoss",
    "average",
    "bound",
    "expectation",
    "forward_kl",
    "importance_weighted_elbo",
    "kl",
    "negative_elbo",
    "negative_importance_weighted_elbo",
    "negative_renyi_elbo",
]

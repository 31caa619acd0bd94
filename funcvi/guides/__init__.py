"""Guides: families of posteriors over the unconstrained space of a target."""

from funcvi.guides.contract import Guide, Posterior, Unconstrained, check_guide, check_target
from funcvi.guides.mean_field import mean_field

__all__ = ["Guide", "Posterior", "Unconstrained", "check_guide", "check_target", "mean_field"]

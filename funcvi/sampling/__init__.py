"""Draws, and which gradients they carry."""

from funcvi.sampling.chunks import sample_in_chunks
from funcvi.sampling.draw import sample
from funcvi.sampling.gamma import gamma_elasticity, log_standard_gamma, standard_gamma
from funcvi.sampling.gradients import pathwise_obstacle, score_obstacle, with_fixed_support
from funcvi.sampling.implicit import from_cdf, implicit
from funcvi.sampling.record import Record, Univariate
from funcvi.sampling.relaxed import relaxed_one_hot, straight_through_one_hot

__all__ = [
    "Record",
    "Univariate",
    "from_cdf",
    "gamma_elasticity",
    "implicit",
    "log_standard_gamma",
    "pathwise_obstacle",
    "relaxed_one_hot",
    "sample",
    "sample_in_chunks",
    "score_obstacle",
    "standard_gamma",
    "straight_through_one_hot",
    "with_fixed_support",
]

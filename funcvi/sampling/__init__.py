"""Draws, and which gradients they carry."""

from funcvi.sampling.draw import sample
from funcvi.sampling.flow import pathwise_obstacle, score_obstacle

__all__ = ["pathwise_obstacle", "sample", "score_obstacle"]

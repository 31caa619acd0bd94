"""From a target to a posterior, and whether to trust it."""

from funcvi.inference.batch_and_match import batch_and_match
from funcvi.inference.empirical import EmpiricalPosterior
from funcvi.inference.infer import infer
from funcvi.inference.report import Report

__all__ = ["EmpiricalPosterior", "Report", "batch_and_match", "infer"]

"""Stochastic networks: weights with distributions, and what their predictions say."""

from funcvi.networks.bayesian import BayesianNetwork, bayesian
from funcvi.networks.prediction import (
    PredictedClasses,
    PredictedValues,
    calibration_error,
    classes,
    values,
)

__all__ = [
    "BayesianNetwork",
    "PredictedClasses",
    "PredictedValues",
    "bayesian",
    "calibration_error",
    "classes",
    "values",
]

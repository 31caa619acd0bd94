"""Stochastic networks: weights with distributions, and what their predictions say."""

from funcvi.networks.bayesian import bayesian
from funcvi.networks.layers import Layer
from funcvi.networks.network import BayesianNetwork, layers_found
from funcvi.networks.prediction import (
    PredictedClasses,
    PredictedValues,
    calibration_error,
    predicted_classes,
    predicted_values,
)

__all__ = [
    "BayesianNetwork",
    "Layer",
    "PredictedClasses",
    "PredictedValues",
    "bayesian",
    "calibration_error",
    "layers_found",
    "predicted_classes",
    "predicted_values",
]

"""What a posterior is read as: tables, predictions, ArviZ's data, figures."""

from funcvi.outputs.methods import Outputs
from funcvi.outputs.summary import Row, Summary

__all__ = ["Outputs", "Row", "Summary"]

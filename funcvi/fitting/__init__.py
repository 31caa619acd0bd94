"""Fitting: pure steps (``init``, ``step``, ``scan``), and :func:`fit`, which drives them."""

from funcvi.fitting.driver import fit
from funcvi.fitting.result import Fit
from funcvi.fitting.status import Status
from funcvi.fitting.steps import Carry, init, scan, step

__all__ = ["Carry", "Fit", "Status", "fit", "init", "scan", "step"]

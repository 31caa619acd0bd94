"""Fourier transforms and windows."""

from interop.aten.registry import Table

rules = Table()

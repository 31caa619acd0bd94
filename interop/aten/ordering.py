"""Sorting, top-k, unique, searching."""

from interop.aten.registry import Table

rules = Table()

"""Factorisations, solves, inverses and what is made of them."""

from interop.aten.registry import Table

rules = Table()

"""Special functions: gamma, error, Bessel and their relatives."""

from interop.aten.registry import Table

rules = Table()

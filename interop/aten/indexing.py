"""Reading and writing by indices: gather, scatter, index_put, masks."""

from interop.aten.registry import Table

rules = Table()

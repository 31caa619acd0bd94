"""interop: the bridge between PyTorch and JAX pytrees; speaks pytrees and numpyro distributions.

It imports nothing from funcvi, and loads torch only where torch is needed. Nothing is public yet.
"""

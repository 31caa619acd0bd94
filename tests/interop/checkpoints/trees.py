"""Trees that these tests save."""

import jax
import jax.numpy as jnp
import numpy as np

from interop.dtypes import ROWS


def every_dtype(without=()):
    """One array of each dtype with arbitrary bits, a scalar and an empty one; needs x64."""
    rng = np.random.default_rng(3)
    tree = {}
    for row in ROWS:
        raw = rng.integers(0, 256, 24 * row.array.itemsize, dtype=np.uint8)
        own = raw > 127 if row.name == "bool" else raw.view(row.array)
        if row.name not in without:
            tree[f"{row.name}.values"] = jax.device_put(own.reshape(2, -1))
    return {**tree, "scalar": jnp.float32(-0.0), "empty": jnp.zeros((0, 3), jnp.bfloat16)}


def small():
    """Two arrays under three names."""
    weight = jnp.arange(6.0).reshape(2, 3)
    return {"layer.weight": weight, "layer.bias": jnp.ones(3, jnp.bfloat16), "tied": weight}

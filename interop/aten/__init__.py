"""Rules: what each torch operation is in JAX, grouped by kind, one decorated function each."""

from interop.aten import (
    activations,
    attention,
    basic,
    comparison,
    control,
    convolution,
    creation,
    decompositions,
    embedding,
    fourier,
    indexing,
    interpolation,
    losses,
    normalization,
    ordering,
    padding,
    pointwise,
    pooling,
    products,
    random,
    recurrent,
    reductions,
    sampling,
    shapes,
    special,
)
from interop.aten.registry import Rules, merge

RULES: Rules = merge(
    part.rules
    for part in (
        activations,
        attention,
        basic,
        comparison,
        control,
        convolution,
        creation,
        decompositions,
        embedding,
        fourier,
        indexing,
        interpolation,
        losses,
        normalization,
        ordering,
        padding,
        pointwise,
        pooling,
        products,
        random,
        recurrent,
        reductions,
        sampling,
        shapes,
        special,
    )
)
"""Every rule by operation name."""

"""What is said of an object that is not a numpyro distribution, wherever one is expected."""

__all__ = ["instead_of_a_distribution"]


def instead_of_a_distribution(other: object) -> str:
    """What came instead of a numpyro distribution, and what to do.

    Example:
        >>> import numpyro.distributions as dist
        >>> instead_of_a_distribution(dist.Normal)
        'got the class Normal: give an instance, Normal(...)'
    """
    kind = other if isinstance(other, type) else type(other)
    name = kind.__name__
    if kind.__module__.partition(".")[0] == "torch":
        return f"got torch's {name}: write it with numpyro.distributions, and JAX arrays"
    if isinstance(other, type):
        return f"got the class {name}: give an instance, {name}(...)"
    return f"got {name}: call the family on its params first"

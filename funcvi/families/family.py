"""Family: a pure function from a pytree of unconstrained parameters to a distribution, and back."""

from funcvi._types import Joint, Params
from funcvi.families.describe import describe
from funcvi.families.evaluate import Evaluation
from funcvi.families.invert import invert
from funcvi.families.roles import Tree

__all__ = ["Family"]


class Family:
    """Unconstrained params to a distribution: ``q(params)``; and back: ``q.inverse(distribution)``.

    Calling it rebuilds the distribution by its constructor, so gradients flow from the
    distribution to ``params`` at every call and nothing can go stale. It holds no state, works
    under jit, grad and vmap, and can be pickled. The batch shape follows the params, so they may
    come from a network.

    Made by :func:`funcvi.family` and :func:`funcvi.unconstrain`.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __call__(self, params: Params) -> Joint:
        """The distribution at ``params``.

        Args:
            params: a pytree as :meth:`inverse` gives it, each leaf a floating-point array of shape
                (*batch, *unconstrained event).

        Returns:
            A numpyro distribution, or a dict, tuple or list of them for a joint.

        Raises:
            ValueError: names are missing or unknown, or shapes do not fit together.
            TypeError: a leaf is not a floating-point array.
        """
        return Evaluation(self.tree, params).build()

    def inverse(self, distribution: Joint) -> Params:
        """The params at which this family gives ``distribution``.

        Each parameter has the batch shape of the distribution that it belongs to, unless it is
        :func:`funcvi.shared`. Which parameterisation the distribution was made by does not matter.

        Raises:
            ValueError: a value lies on or next to the boundary of its constraint (the message names
                a value that works), or differs from one that the family holds fixed or tied.
            TypeError: the distribution is of another kind than the family's.
        """
        return invert(self.tree, distribution)

    def __repr__(self) -> str:
        return describe(self.tree)

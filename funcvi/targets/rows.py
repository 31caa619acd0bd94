"""Which rows of its plates a model reads: those of a minibatch, or all of them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.primitives import Messenger

from funcvi.targets.record import Target
from funcvi.targets.replay import Message, Model

__all__ = ["OnAllRows", "OnRows", "Subsampled", "on_all_rows"]


class _Plates(Messenger):
    """Reaches the plates of a model, those in the bodies of scans and branches too.

    A scan or a branch runs its body apart from the handlers around it, so the body itself is put
    under them.
    """

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "control_flow":
            msg["args"] = tuple(map(self._inside, msg["args"]))
        elif msg["type"] == "plate":
            self.give(msg)

    def _inside(self, argument: Any) -> Any:
        if not callable(argument):
            return argument

        def body(*args: Any, **kwargs: Any) -> Any:
            with self:
                return argument(*args, **kwargs)

        return body

    def give(self, msg: Message) -> None:
        """Sees a plate's message, and may set its rows."""
        raise NotImplementedError


class Subsampled(_Plates):
    """Sees which plates of the model are subsampled.

    Attributes:
        sizes: by plate, how many rows there are and how many are read, once the model has run.
    """

    def __init__(self, fn: Model) -> None:
        super().__init__(fn)
        self.sizes: dict[str, tuple[int, int]] = {}

    def give(self, msg: Message) -> None:
        """Sees the number of rows."""
        size, some = msg["args"]
        if some not in (None, size):
            self.sizes[msg["name"]] = size, some


class OnRows(_Plates):
    """The model where some plates have these rows, an array of indices by a plate's name."""

    def __init__(self, fn: Model, rows: Mapping[str, Array]) -> None:
        super().__init__(fn)
        self.rows = rows

    def give(self, msg: Message) -> None:
        """Sets the rows, and their number, from which numpyro makes the scale."""
        if msg["name"] in self.rows:
            rows = self.rows[msg["name"]]
            msg["args"], msg["value"] = (msg["args"][0], len(rows)), rows


class OnAllRows(_Plates):
    """The model where these plates are not subsampled."""

    def __init__(self, fn: Model, names: frozenset[str]) -> None:
        super().__init__(fn)
        self.names = names

    def give(self, msg: Message) -> None:
        """Sets all rows, in their order."""
        if msg["name"] in self.names:
            size = msg["args"][0]
            msg["args"], msg["value"] = (size, size), jnp.arange(size)


def on_all_rows(target: Target, model: Model) -> Model:
    """A model with the plates of a target's, where those that it subsamples are not."""
    if target.minibatch is None:
        return model
    return OnAllRows(model, frozenset(target.minibatch.sizes))

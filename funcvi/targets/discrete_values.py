"""Runs of a model whose discrete latents are given: single values, or all of them at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from funcvi._numpyro import is_scan, runs_backwards, scanned_sites
from funcvi.targets.chains import Chain
from funcvi.targets.replay import Message, Model, WithoutDraws

__all__ = ["AllValues", "GivenDiscrete"]


class GivenDiscrete(Messenger):
    """Gives discrete latents values, in the bodies of scans and branches too."""

    def __init__(self, fn: Model, values: Mapping[str, Array]) -> None:
        super().__init__(fn)
        self.values = values

    def process_message(self, msg: Message) -> None:
        """Sets the value of a site that is one of them."""
        if msg["type"] == "control_flow":
            turned = runs_backwards(msg)  # its body takes a series step by step, as it runs
            series = {n: jnp.flip(x, 0) if turned else x for n, x in self.values.items()}
            msg["kwargs"]["substitute_stack"].append(("substitute", series))
        elif msg["type"] == "sample" and msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]


class AllValues(GivenDiscrete):
    """Gives discrete latents all their values at once; scans, which have them in turn, are summed.

    Attributes:
        chains: the sums over scans, once the model has run.
    """

    def __init__(
        self,
        fn: Model,
        values: Mapping[str, Array],
        single: Mapping[str, Array],
        chain: Callable[[Message], Chain],
    ) -> None:
        super().__init__(fn, values)
        self.single, self.chain = single, chain
        self.chains: list[Chain] = []
        self.starts: dict[_Steady, Any] = {}

    def process_message(self, msg: Message) -> None:
        """Sets the values; a scan with sites of its own runs with single ones of these first."""
        if msg["type"] != "control_flow":
            super().process_message(msg)
        elif is_scan(msg):
            f, start, xs, *rest = msg["args"]
            steady = _Steady(GivenDiscrete(f, self.single))
            msg["args"] = (steady, steady.wide(start, xs), xs, *rest)
            self.starts[steady] = start
        else:
            msg["kwargs"]["substitute_stack"].append(("substitute", self.values))

    def postprocess_message(self, msg: Message) -> None:
        """Sums a scan that has run."""
        if msg["type"] != "control_flow" or not is_scan(msg):
            return
        if self.single.keys() & scanned_sites(msg):
            f, _, *rest = msg["args"]
            args = (f.body.fn, self.starts[f], *rest)
            self.chains.append(self.chain({**msg, "args": args}))


@dataclass(frozen=True, eq=False)
class _Steady:
    """A body whose carry keeps its shape, though a first one may have all values of a site."""

    body: GivenDiscrete

    def wide(self, start: Any, xs: Any) -> Any:
        """A first carry with the batch axes that one step adds."""

        def after(start: Any) -> Any:
            body = WithoutDraws(handlers.seed(self.body, jax.random.key(0)))
            with handlers.block():
                return body(start, jax.tree.map(lambda x: x[0], xs))[0]

        def wider(leaf: Any, later: Any) -> Any:
            if jnp.ndim(leaf) <= len(later.shape):
                return leaf
            return jnp.broadcast_to(leaf, jnp.broadcast_shapes(jnp.shape(leaf), later.shape))

        return jax.tree.map(wider, start, jax.eval_shape(after, start))

    def __call__(self, carry: Any, x: Any) -> Any:
        """One step."""
        after, y = self.body(carry, x)

        def like(leaf: Any, first: Any) -> Any:
            if jnp.ndim(leaf) >= jnp.ndim(first):
                return leaf
            return jnp.broadcast_to(leaf, jnp.shape(first)).astype(jnp.result_type(first))

        return jax.tree.map(like, after, carry), y

"""A posterior as one file: arrays as safetensors, what they mean as JSON in its header."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from funcvi._jax import read_inputs
from funcvi.files.supports import described, support_of
from funcvi.guides import Guide, Posterior, flow, full_rank, low_rank, mean_field, mixture
from funcvi.inference.empirical import EmpiricalPosterior
from funcvi.targets import Sites, Target, target

__all__ = ["load_posterior", "save_posterior"]

_FORMAT = "funcvi posterior 1"
_GUIDES: dict[str, Callable[..., Guide]] = {
    "mean_field": mean_field,
    "full_rank": full_rank,
    "low_rank": low_rank,
    "mixture": mixture,
    "flow": flow,
}
_MISSING = 'posterior files need safetensors: pip install "safetensors>=0.8".'


def save_posterior(path: str | os.PathLike[str], posterior: Posterior | EmpiricalPosterior) -> None:
    """Writes a posterior, to be sampled where neither its model nor its data is.

    One safetensors file, whose header says in JSON what the arrays are; it holds no code. It is
    written beside and then moved, so that what was there before stays whole if writing fails. A set
    of draws keeps its deterministic sites; those of a normal posterior are its model's to compute,
    and are left out.

    Args:
        path: of the file, by custom ``.safetensors``.
        posterior: of ``fv.infer``, ``fv.batch_and_match``, ``fv.laplace``, ``fv.mean_field``,
            ``fv.full_rank``, ``fv.low_rank``, ``fv.mixture`` or ``fv.flow``.

    Raises:
        TypeError: it is no such posterior.
        ValueError: a support depends on another site, or has no name.
        OSError: it cannot be written.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, tempfile
        >>> import funcvi as fv
        >>> t = fv.target(lambda: numpyro.sample("a", dist.Gamma(4.0, 1.0)))
        >>> posterior, report = fv.infer(t, key=jax.random.key(0))
        >>> path = tempfile.mkdtemp() + "/posterior.safetensors"
        >>> fv.save_posterior(path, posterior)
        >>> again = fv.load_posterior(path)  # in another process, without the model
        >>> key = jax.random.key(1)
        >>> bool((fv.sample(again, key)["a"] == fv.sample(posterior, key)["a"]).all())
        True
    """
    safetensors = _safetensors()
    if isinstance(posterior, EmpiricalPosterior):
        latents = set(posterior.target.shapes)
        values = {n: x for n, x in posterior.values.items() if n not in latents}
        arrays = {"vectors": posterior.vectors} | {f"computed/{n}": x for n, x in values.items()}
        facts: dict[str, Any] = {"kind": "draws", "num_chains": posterior.num_chains}
    elif (
        isinstance(posterior, Posterior)
        and posterior.guide.recipe is not None
        and not posterior.guide.target.points
    ):
        name, options = posterior.guide.recipe
        leaves, _ = jax.tree_util.tree_flatten_with_path(posterior.params)
        arrays = {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
        facts = {"kind": name, "options": dict(options)}
    elif isinstance(posterior, Guide):
        raise TypeError("expected a posterior, got a Guide: save guide(fit.params).")
    else:
        raise TypeError(
            f"a file cannot describe this {type(posterior).__name__}: save draws of it, "
            "fv.EmpiricalPosterior(posterior.target, posterior.target.ravel("
            "posterior.sample_unconstrained(key, (10_000,))[0]))."
        )
    facts |= {"format": _FORMAT, "sites": _sites(posterior.target)}
    numbers = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    _write(Path(path), safetensors.save(numbers, metadata={"funcvi": json.dumps(facts)}))


def load_posterior(path: str | os.PathLike[str]) -> Posterior | EmpiricalPosterior:
    """What :func:`save_posterior` wrote: the same draws from the same key.

    Its target knows shapes and supports; it has no log density, for that is the model's.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no file of a posterior, or its numbers are of float64 where that is off.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, tempfile
        >>> import funcvi as fv
        >>> guide = fv.mean_field(fv.target(lambda: numpyro.sample("a", dist.Gamma(4.0, 1.0))))
        >>> path = tempfile.mkdtemp() + "/posterior.safetensors"
        >>> fv.save_posterior(path, guide(guide.init(jax.random.key(0))))
        >>> print(fv.load_posterior(path))
        Posterior of
          a: positive, shape ()
        on unconstrained space: a Normal
    """
    safetensors = _safetensors()
    from safetensors import SafetensorError

    data = Path(path).read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["funcvi"])
        held = safetensors.load(data)
    except (ValueError, KeyError, TypeError, OverflowError, SafetensorError) as error:
        raise ValueError(f"{path} is no file of fv.save_posterior: {error}") from None
    if facts["format"] != _FORMAT:
        raise ValueError(f"{path} has the format {facts['format']!r}, this version {_FORMAT!r}.")
    arrays = {name: _kept(path, x) for name, x in held.items()}
    supports = {
        name: (support_of(site["support"]), tuple(site["shape"]))
        for name, site in facts["sites"].items()
    }
    of = target(_no_density, supports=supports)
    if facts["kind"] == "draws":
        start = "computed/"
        computed = {n.removeprefix(start): x for n, x in arrays.items() if n.startswith(start)}
        return EmpiricalPosterior(of, arrays["vectors"], facts["num_chains"], computed)
    place = {name: jnp.zeros(shape) for name, shape in of.shapes.items()}
    guide = _GUIDES[facts["kind"]](dataclasses.replace(of, place=place), **facts["options"])
    leaves, tree = jax.tree_util.tree_flatten_with_path(guide.init(jax.random.key(0)))
    named = [arrays[f"params{jax.tree_util.keystr(path)}"] for path, _ in leaves]
    return guide(jax.tree.unflatten(tree, named))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(_MISSING) from None
    return safetensors.numpy


def _no_density(values: Sites) -> NoReturn:
    raise ValueError(
        "a posterior from a file has no model, so no log density: make its target anew, "
        "fv.target(model, *args)."
    )


def _sites(of: Target) -> Mapping[str, Any]:
    """Of each latent site its support and shape.

    Raises:
        ValueError: a support that depends on other sites, or that has no name.
    """
    closed, shapes = jax.make_jaxpr(of.constrain, return_shape=True)(
        {name: jnp.zeros(shape) for name, shape in of.shapes.items()}
    )
    names, outputs = sorted(of.shapes), sorted(shapes)
    described_sites = {}
    for name in of.shapes:
        reads = read_inputs(closed.jaxpr, [output == name for output in outputs])
        others = [n for n, is_read in zip(names, reads, strict=True) if is_read and n != name]
        remedy = "save draws of what you need instead."
        if others:
            raise ValueError(f"the support of site {name!r} depends on {others}: {remedy}")
        try:
            support = described(of.constraints[name])
        except ValueError as error:
            raise ValueError(f"the support of site {name!r}: {error} Or {remedy}") from None
        described_sites[name] = {"support": support, "shape": list(of.value_shapes[name])}
    return described_sites


def _kept(path: str | os.PathLike[str], array: np.ndarray) -> jax.Array:
    kept = jnp.asarray(array)
    if kept.dtype != array.dtype:
        raise ValueError(
            f"{path} holds {array.dtype}, which JAX has switched off: "
            'jax.config.update("jax_enable_x64", True) before.'
        )
    return kept


def _write(path: Path, data: bytes) -> None:
    """All or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

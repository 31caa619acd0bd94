"""diffusers: UNets, autoencoders, transformers and control nets, shrunk by their arguments."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from comparison import Case, NotBuilt, first_line
from shrinking import shrunk_number

_TOKENS, _SIDE = 8, 16
_STATIC = {"Lumina2Transformer2DModel", "MochiTransformer3DModel"}
"""Those whose sizes the mask of the text decides."""


def models() -> dict[str, Callable[[], Case]]:
    """By class, those that are no container of others."""
    import diffusers.models as home
    from diffusers import ModelMixin

    names = {name for group in home._import_structure.values() for name in group}
    chosen = {}
    for name in names:
        kind = getattr(home, name, None)
        model = isinstance(kind, type) and issubclass(kind, ModelMixin) and kind is not ModelMixin
        if model and not name.startswith("Multi") and "Adapter" not in name:
            chosen[name] = partial(_case, kind)
    return chosen


def _case(kind: Any) -> Case:
    try:
        module = kind(**_small(kind)).eval()
    except Exception as error:
        raise NotBuilt(f"{type(error).__name__}: {first_line(error)}") from error
    if sum(p.numel() for p in module.parameters()) > 60_000_000:
        raise NotBuilt("its arguments do not shrink")
    reasons = []
    for kwargs in _inputs(module):
        try:
            with torch.no_grad():
                module(**kwargs)
        except Exception as error:
            reasons.append(f"no inputs fit: {type(error).__name__}: {first_line(error)}")
        else:
            mask = "encoder_attention_mask"
            fixed = (mask,) if kind.__name__ in _STATIC and mask in kwargs else ()
            return Case(module, (), kwargs, fixed)
    raise NotBuilt(reasons[0] if reasons else "no inputs known")


def _small(kind: Any) -> dict[str, Any]:
    """The arguments of a class that are other than their defaults."""
    given = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        value = parameter.default
        if value is inspect.Parameter.empty:
            continue
        new = _shrunk(name, value)
        if new != value:
            given[name] = new
    return given


def _shrunk(name: str, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float) and "drop" in name:
        return 0.0
    if isinstance(value, int):
        if "sample_size" in name or name in ("sample_height", "sample_width"):
            return min(value, _SIDE)
        return (
            value if "in_channels" in name or "out_channels" in name else shrunk_number(name, value)
        )
    numbers = isinstance(value, list | tuple) and value and all(type(n) is int for n in value)
    if not numbers:
        return value
    if name.startswith("axes_dim"):
        return type(value)([4, 6, 6] if len(value) == 3 else [4, 4, 4, 4][: len(value)])
    if min(value) >= 32:
        return type(value)(n * 32 // min(value) for n in value)
    if "layers" in name:
        return type(value)(min(n, 1) for n in value)
    return value


def _inputs(module: Any) -> Iterator[dict[str, Any]]:
    config = module.config
    parameters = inspect.signature(module.forward).parameters
    generator = torch.Generator().manual_seed(0)

    def floats(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def number(*names: str, default: int = 64) -> int:
        found = (config.get(n) for n in names)
        return next((n for n in found if isinstance(n, int) and n), default)

    channels = number("in_channels", "in_dim", "input_channels", default=3)
    inner = number("joint_attention_dim", "cross_attention_dim", "caption_channels", "text_dim",
                   "text_embed_dim", "caption_projection_dim", "cap_feat_dim")  # fmt: skip
    images = [
        floats(1, channels, _SIDE, _SIDE),
        floats(1, channels, 2, _SIDE, _SIDE),
        floats(1, 2, channels, _SIDE, _SIDE),
        floats(1, 16, channels),
        floats(1, channels, 9, 32, 32),
        floats(1, channels, 64, 64),
        floats(1, channels, 256),
    ]
    known: dict[str, list[Any]] = {
        "sample": images,
        "hidden_states": images,
        "timestep": [torch.tensor([10]), torch.tensor([0.5])],
        "timestep_ratio": [torch.tensor([0.5])],
        "encoder_hidden_states": [floats(1, _TOKENS, inner), floats(1, _TOKENS, 64)],
        "encoder_attention_mask": [torch.ones(1, _TOKENS, dtype=torch.int64)],
        "pooled_projections": [floats(1, number("pooled_projection_dim"))],
        "proj_embedding": [floats(1, number("embedding_dim"))],
        "guidance": [torch.tensor([3.0])],
        "img_ids": [torch.arange(48.0).reshape(16, 3) % 4],
        "txt_ids": [torch.zeros(_TOKENS, 3)],
        "class_labels": [torch.tensor([1])],
        "added_time_ids": [floats(1, 3)],
        "controlnet_cond": [floats(1, 3, 8 * _SIDE, 8 * _SIDE), images[0]],
        "clip_text_pooled": [floats(1, 1, number("clip_text_pooled_in_channels"))],
        "original_size": [torch.tensor([[128.0, 128.0]])],
        "target_size": [torch.tensor([[128.0, 128.0]])],
        "crop_coords": [torch.tensor([[0.0, 0.0]])],
        "fps": [torch.tensor([8])],
        "image_latents": [images[1]],
        "added_cond_kwargs": [{"resolution": None, "aspect_ratio": None}],
    }
    required = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
    required = [n for n in required if n not in ("args", "kwargs")]
    rest = ("timestep", "encoder_hidden_states", "pooled_projections", "img_ids", "txt_ids")
    optional = [n for n in rest if n in parameters and n not in required]
    more = [n for n in ("class_labels", "guidance", "added_cond_kwargs") if n in parameters]
    for extra in ([], optional, [*optional, *more], ["timestep", *more[:1]], ["timestep", *more]):
        names = [n for n in dict.fromkeys((*required, *extra)) if n in parameters]
        if any(n not in known for n in names):
            continue
        for values in itertools.product(*(known[n] for n in names)):
            yield dict(zip(names, values, strict=True))

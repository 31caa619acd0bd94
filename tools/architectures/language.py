"""transformers: every type of model that a small configuration builds, and inputs for it."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from comparison import Case, NotBuilt, first_line
from shrinking import IMAGE, VARIANTS, VOCABULARY, small

LENGTH = 8
_ALTERNATIVES = ("images", "pixel_values_videos", "input_values", "hidden_states", "patch")
STATIC = ("grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids")


def models() -> dict[str, Callable[[], Case]]:
    """By type, those with a model of torch."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return {name: partial(_case, name) for name in MODEL_MAPPING_NAMES}


def _case(name: str) -> Case:
    from transformers import CONFIG_MAPPING, AutoModel

    reasons = []
    for fixed in VARIANTS:
        try:
            config = small(CONFIG_MAPPING[name], fixed)
            module = AutoModel.from_config(config).eval()
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {first_line(error)}")
            continue
        if sum(p.numel() for p in module.parameters()) > 60_000_000:
            reasons.append("its configuration does not shrink")
            continue
        for kwargs in _inputs(module, config):
            try:
                with torch.no_grad():
                    module(**kwargs)
            except Exception as error:
                reasons.append(f"no inputs fit: {type(error).__name__}: {first_line(error)}")
            else:
                return Case(module, (), kwargs, tuple(n for n in kwargs if n in STATIC))
    raise NotBuilt(reasons[0] if reasons else "no inputs known")


def _inputs(module: Any, config: Any) -> Iterator[dict[str, Any]]:
    """Guesses, the fullest first."""
    parameters = inspect.signature(module.forward).parameters
    names = [n for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    required = [n for n in names if parameters[n].default is inspect.Parameter.empty]
    main = getattr(module, "main_input_name", names[0])
    main = main if main in names else names[0]
    known = _known(config)
    more = [n for n in ("attention_mask", "decoder_input_ids") if n in names]
    pictures = [n for n in ("pixel_values", "input_ids") if n in names]
    rest = [n for n in names if n in known and n != "attention_mask" and n not in _ALTERNATIVES]
    choices = [
        {*required, *pictures, main, *more},
        {*required, main, *more},
        {*required, main, *more} - {"attention_mask"},
        {*required, main},
        {*required, main, *more, *rest},
    ]
    seen = []
    for chosen in choices:
        if chosen in seen:
            continue
        seen.append(chosen)
        variants = [n for n in chosen if len(known.get(n, [])) > 1]
        count = max((len(known[n]) for n in variants), default=1)
        for i in range(count):
            kwargs = {n: known[n][min(i, len(known[n]) - 1)] for n in chosen if n in known}
            if kwargs:
                yield kwargs


def _known(config: Any) -> dict[str, list[torch.Tensor]]:
    """By the name of an argument, values that may fit."""
    generator = torch.Generator().manual_seed(0)

    def floats(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def ids(length: int = LENGTH) -> torch.Tensor:
        least = 5
        most = min(_find(config, "vocab_size", VOCABULARY), 100)
        return torch.randint(least, max(most, least + 1), (2, length), generator=generator)

    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, -2:] = 0
    size = _pair(_find(config, "image_size", IMAGE))
    channels = _find(config, "num_channels", 3)
    channels = channels if isinstance(channels, int) else 3
    patch = _pair(_find(config, "patch_size", 16))
    frames = _find(config, "num_frames", 4)
    mel = _find(config, "num_mel_bins", 80)
    pixels = [floats(2, channels, *size), floats(2, 3, *size), floats(2, 3, 64, 64)]
    pixels += [floats(2, 1, 3, *size), floats(2, 3, 128, 128)]
    pixels += [floats(2, 16, patch[0] * patch[1] * channels), floats(1, 3, 224, 224)]
    squares = patch[0] * patch[1] * channels
    packed = [floats(16, squares * _find(config, "temporal_patch_size", 1)), floats(16, squares)]
    boxes = torch.randint(0, 30, (2, LENGTH, 4), generator=generator).sort(-1).values
    return {
        "input_ids": [ids()],
        "decoder_input_ids": [ids()],
        "attention_mask": [mask],
        "pixel_values": pixels,
        "images": pixels,
        "pixel_values_videos": [floats(2, frames, channels, *size)],
        "bbox": [boxes],
        "input_values": [
            floats(2, 1600),
            floats(2, 1, 1600),
            floats(2, 128, mel),
            floats(2, LENGTH, mel),
        ],
        "input_features": [
            floats(2, 64, mel),
            floats(2, mel, 64),
            floats(2, mel, 2 * _find(config, "max_source_positions", 128)),
        ],
        "hidden_states": packed,
        "grid_thw": [torch.tensor([[1, 2, 4], [1, 4, 2]])],
        "spatial_shapes": [torch.tensor([[4, 4], [2, 8]])],
        "pixel_attention_mask": [torch.ones(2, 16, dtype=torch.int64)],
        "flattened_patches": [floats(2, 16, 2 + _find(config, "patch_embed_hidden_size", 64))],
        "padding_mask": [torch.ones(2, 1600, dtype=torch.bool)],
        "patch": [floats(2, *patch)],
        **_of_kinds(config, floats),
    }


def _of_kinds(config: Any, floats: Callable[..., torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """What models of actions, time series, tasks and sounds take."""
    numbers = [_find(config, n, 1) for n in ("state_dim", "act_dim", "num_time_features")]
    states, actions, features = (n if isinstance(n, int) else 1 for n in numbers)
    past = _find(config, "context_length", 8) or 8
    lags = _find(config, "lags_sequence", [1])
    past += max(lags) if isinstance(lags, list | tuple) and lags else 0
    future = _find(config, "prediction_length", 4) or 4
    places = torch.stack([torch.arange(16) % 4, torch.arange(16) // 4], -1).expand(2, 16, 2)
    ones = torch.ones(2, LENGTH, dtype=torch.int64)
    return {
        "states": [floats(2, LENGTH, states)],
        "actions": [floats(2, LENGTH, actions)],
        "rewards": [floats(2, LENGTH, 1)],
        "returns_to_go": [floats(2, LENGTH, 1)],
        "timesteps": [torch.arange(LENGTH).expand(2, LENGTH)],
        "past_values": [floats(2, past), floats(2, past, 1)],
        "past_time_features": [floats(2, past, features)],
        "past_observed_mask": [torch.ones(2, past), torch.ones(2, past, 1)],
        "future_values": [floats(2, future)],
        "future_time_features": [floats(2, future, features)],
        "task_inputs": [torch.randint(5, 50, (2, LENGTH), generator=torch.manual_seed(0))],
        "pixel_position_ids": [places],
        "audio_mel": [floats(2, 64, _find(config, "input_feat_size", 80))],
        "audio_mel_mask": [torch.zeros(2, 64, dtype=torch.bool)],
        "image_embeds_position_mask": [(ones.cumsum(1) < 3).long()],
    }


def _find(config: Any, name: str, default: Any) -> Any:
    """The attribute of a configuration or of the first of its parts that has it."""
    value = getattr(config, name, None)
    if value is not None:
        return value
    for part in getattr(config, "sub_configs", {}):
        inner = getattr(config, part, None)
        value = None if inner is None else _find(inner, name, None)
        if value is not None:
            return value
    return default


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return size.get("height", IMAGE), size.get("width", IMAGE)
    return (size, size) if isinstance(size, int) else tuple(size)[-2:]

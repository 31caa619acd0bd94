"""Small configurations of transformers' models: each number shrunk by what its name says it is."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

HIDDEN, HEADS, IMAGE, VOCABULARY = 64, 4, 64, 128

VARIANTS: tuple[dict[str, int], ...] = (
    {},
    {"num_key_value_heads": HEADS},
    {"num_key_value_heads": HEADS, "head_dim": 16, "rotary_dim": 8},
    {"num_hidden_layers": 4},
    {"window_size": 2},
)
"""Numbers that some types need otherwise, tried in turn."""

_RULES: tuple[tuple[str, Callable[[int], int]], ...] = (
    (r"(_token_id|_token_index|_index|_id)$", lambda n: n),
    (r"vocab_size|num_embeddings_vocab", lambda n: min(n, VOCABULARY)),
    (r"(key_value|kv)_heads", lambda n: min(n, 2)),
    (r"heads$|_head$|num_heads|n_heads", lambda n: min(n, HEADS)),
    (r"head_dim|d_kv$|attention_key_size|head_width|kv_channels", lambda n: min(n, 16)),
    (r"experts_per_tok|top_?k|experts_per_token|moe_k", lambda n: min(n, 2)),
    (r"experts$", lambda n: min(n, 4)),
    (r"kv_shared_layers", lambda n: 0),
    (r"n_group$|topk_group", lambda n: min(n, 1)),
    (r"rotary_dim", lambda n: min(n, 16)),
    (r"lora_rank|_rank$", lambda n: min(n, 16)),
    (r"layers$|n_layers?$|depth$|_blocks?$|num_layers_per", lambda n: min(n, 2)),
    (r"intermediate|ffn_dim|d_ff$|n_inner|mlp_dim|ffn_size|feedforward", lambda n: min(n, 48)),
    (r"codebook_size|num_queries|num_query_tokens|num_latents", lambda n: min(n, 16)),
    (r"max_position|n_positions|n_ctx$|max_source_pos|max_target_pos", lambda n: min(n, 128)),
    (r"image_size|img_size", lambda n: min(n, IMAGE)),
    (
        r"hidden_size|d_model|n_embd|dim$|width$|embed|hidden|size_per|projection|channels?$"
        r"|features?$|_size$|num_filters",
        lambda n: HIDDEN if n > HIDDEN else n,
    ),
)

_KEPT = re.compile(
    r"patch|kernel|window|stride|chunk|block_size|input_channels|num_channels|eval_size"
)
_LISTS = re.compile(r"depths|num_blocks|layers$|num_conv_layers|repeats")


def small(kind: Any, fixed: dict[str, int], ids: dict[str, int] | None = None) -> Any:
    """A configuration of this class, a few layers deep and some numbers wide."""
    ids = {} if ids is None else ids
    default = kind()
    given: dict[str, Any] = {}
    base = {f.name for f in dataclasses.fields(_base())} - {
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
    }
    names = [f.name for f in dataclasses.fields(kind) if f.name not in base and f.init]
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    for name in names:
        value = getattr(default, name, None)
        if name == "backbone_config" and type(value).__name__ in ("NoneType", "TimmBackboneConfig"):
            given[name] = _backbone()
        elif isinstance(value, _base()):
            given[name] = small(type(value), fixed, ids)
        elif name == "use_cache":
            given[name] = False
        elif name == "prediction_length" and value is None:
            given[name] = 4
        elif name in fixed:
            given[name] = fixed[name]
        elif defaults[name] is None and name.endswith("_types"):
            continue  # which follows from the number of layers
        else:
            changed = _shrunk(name, value, ids)
            if changed is not value and changed != value:
                given[name] = changed
    config = kind(**given)
    for name in ("dropout", "drop_path"):
        for attribute in list(vars(config)):
            if name in attribute and isinstance(getattr(config, attribute), float):
                setattr(config, attribute, 0.0)
    return config


def _backbone() -> Any:
    """What detectors look at images with, where their own default is to be downloaded."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
        layer_type="basic", out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip


def _base() -> Any:
    from transformers import PretrainedConfig

    return PretrainedConfig


def _shrunk(name: str, value: Any, ids: dict[str, int]) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if "drop" in name and isinstance(value, float):
        return 0.0
    if re.search(r"(token_id|token_index)$", name) or name in ("image_token", "audio_token"):
        return _token(name, value, ids)
    if isinstance(value, int):
        return shrunk_number(name, value)
    if isinstance(value, list | tuple) and value and all(type(n) is int for n in value):
        if _LISTS.search(name):
            return type(value)(min(n, 1) for n in value)
        if _KEPT.search(name):
            return value
        if name.endswith("heads") and all(n % 3 == 0 for n in value):
            return type(value)(n // 3 for n in value)  # of widths that are multiples of 96
        if "image_size" in name or "img_size" in name:
            return type(value)(min(n, IMAGE) for n in value)
        if min(value) >= 16 and re.search(r"dim|hidden|channels|width|sizes|features", name):
            least = min(value)
            return type(value)(max(n * 16 // least, 16) for n in value)
        return value
    if isinstance(value, dict) and "mrope_section" in value:
        return {**value, "mrope_section": [2, 3, 3]}
    return value


def shrunk_number(name: str, value: int) -> int:
    """What a number of this name becomes."""
    if _KEPT.search(name) and "embed" not in name:
        return value
    for pattern, smaller in _RULES:
        if re.search(pattern, name):
            return smaller(value)
    return value


def _token(name: str, value: Any, ids: dict[str, int]) -> Any:
    if isinstance(value, list):
        return [_token(name, v, ids) for v in value]
    if not isinstance(value, int) or value < VOCABULARY:
        return value
    return ids.setdefault(name.replace("_index", "_id"), VOCABULARY - 1 - len(ids))

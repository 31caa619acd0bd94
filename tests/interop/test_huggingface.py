"""Hugging Face architectures, small and random: outputs, losses and gradients, eager and jitted."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
TEXT = {
    "vocab_size": 99,
    "hidden_size": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
POSITIONS = {"max_position_embeddings": 32}
IMAGE = {"image_size": 16, "patch_size": 4, "hidden_size": 16}


def _ids() -> Any:
    ids = np.random.default_rng(0).integers(3, 99, (2, 7))
    mask = np.ones((2, 7), np.int64)
    mask[1, 5:] = 0
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}


def _floats(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _labels() -> Any:
    return {**_ids(), "labels": _ids()["input_ids"]}


# name: (model class, config class, config arguments, inputs)
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "encoder: BERT": ("BertModel", "BertConfig", TEXT | SMALL | POSITIONS, _ids),
    "encoder: RoBERTa classifier": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        TEXT | SMALL | POSITIONS,
        lambda: {**_ids(), "labels": np.array([0, 1])},
    ),
    "decoder: GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 99, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
        | {"use_cache": False, "bos_token_id": 1, "eos_token_id": 2},
        _labels,
    ),
    "decoder: Llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        TEXT | SMALL | {"num_key_value_heads": 1, "use_cache": False},
        _labels,
    ),
    "mixture of experts: Mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        TEXT
        | SMALL
        | {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"use_cache": False},
        _labels,
    ),
    "encoder-decoder: T5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2}
        | {"use_cache": False},
        lambda: {**_ids(), "decoder_input_ids": _ids()["input_ids"]},
    ),
    "vision: ViT": (
        "ViTModel",
        "ViTConfig",
        SMALL | IMAGE,
        lambda: {"pixel_values": _floats(2, 3, 16, 16)},
    ),
    "vision: ConvNeXt": (
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]},
        lambda: {"pixel_values": _floats(2, 3, 32, 32)},
    ),
    "vision and text: CLIP": (
        "CLIPModel",
        "CLIPConfig",
        {
            "text_config": TEXT | SMALL | POSITIONS,
            "vision_config": SMALL | IMAGE,
            "projection_dim": 12,
        },
        lambda: {**_ids(), "pixel_values": _floats(2, 3, 16, 16)},
    ),
    "audio: Wav2Vec2": (
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        {"hidden_size": 16, "conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 3)}
        | {"conv_stride": (5, 2, 2), "num_conv_pos_embeddings": 16}
        | {"num_conv_pos_embedding_groups": 2}
        | SMALL,
        lambda: {"input_values": _floats(2, 400)},
    ),
    "audio, encoder-decoder: Whisper": (
        "WhisperModel",
        "WhisperConfig",
        {"vocab_size": 99, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
        | {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 20}
        | {"decoder_ffn_dim": 20, "num_mel_bins": 8, "max_source_positions": 20}
        | {"max_target_positions": 16, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1}
        | {"eos_token_id": 2, "decoder_start_token_id": 1},
        lambda: {
            "input_features": _floats(2, 8, 40),
            "decoder_input_ids": _ids()["input_ids"],
        },
    ),
    "state space: Mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 99, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
        | {"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        lambda: {"input_ids": _ids()["input_ids"]},
    ),
    "state space: Mamba 2": (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {"vocab_size": 99, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
        | {"num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4, "use_cache": False}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        lambda: {"input_ids": _ids()["input_ids"]},
    ),
}


def floating(tree: Any) -> list[Any]:
    """The floating arrays of a nested output, in order, from torch's or from ours."""
    if isinstance(tree, dict):
        return [x for value in tree.values() for x in floating(value)]
    if isinstance(tree, list | tuple):
        return [x for value in tree for x in floating(value)]
    if isinstance(tree, torch.Tensor):
        return [tree] if tree.is_floating_point() else []
    is_float = isinstance(tree, jax.Array) and jnp.issubdtype(tree.dtype, jnp.floating)
    return [tree] if is_float else []


def near(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Within ``tolerance`` of the largest magnitude."""
    expected = expected.detach().numpy()
    scale = max(float(np.abs(expected).max()), 1e-3)
    worst = float(np.abs(np.asarray(found) - expected).max()) / scale
    assert worst < tolerance, f"{what}: {worst:.2g}"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_torch(name: str) -> None:
    model, config, arguments, inputs = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = getattr(transformers, model)(getattr(transformers, config)(**arguments)).eval()
    given = inputs()
    expected = floating(dict(module(**{k: torch.from_numpy(v) for k, v in given.items()})))
    weights = [torch.cos(torch.arange(x.numel())).reshape(x.shape) for x in expected]
    sum((x * w).sum() for x, w in zip(expected, weights, strict=True)).backward()

    net = interop.to_jax(module, downcast=True)
    arrays = {
        k: jnp.asarray(v, v.dtype if v.dtype == np.float32 else np.int32) for k, v in given.items()
    }

    def total(params: Any) -> Any:
        found = floating(net(params, **arrays))
        return sum(jnp.sum(x * w.numpy()) for x, w in zip(found, weights, strict=True)), found

    slopes, found = jax.jit(jax.grad(total, has_aux=True))(net.params)
    eager = floating(net(net.params, **arrays))
    assert len(found) == len(expected)
    for i, (x, y, z) in enumerate(zip(found, eager, expected, strict=True)):
        near(x, z, 1e-4, f"output {i}, jitted")
        near(y, z, 1e-4, f"output {i}, eager")
    largest = max(float(p.grad.abs().max()) for p in module.parameters() if p.grad is not None)
    for key, parameter in module.named_parameters(remove_duplicate=True):
        if not parameter.requires_grad:
            continue
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        worst = float(np.abs(np.asarray(slopes[net.ties.get(key, key)]) - grad.numpy()).max())
        scale = max(float(grad.abs().max()), 1e-3 * largest)
        assert worst / scale < 1e-3, f"{key}: {worst / scale:.2g}"

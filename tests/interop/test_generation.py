"""Hugging Face models with their caches: the tokens of torch's own generate, one compilation."""

import importlib
import inspect
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(scope="module")
def transformers() -> Any:
    """Seconds to import, which whoever collects the quick tests need not wait."""
    return pytest.importorskip("transformers")


@pytest.fixture
def past(transformers: Any) -> str:
    """The cache's name as an input and an output: the second before transformers 5.24."""
    parameters = inspect.signature(transformers.GPT2LMHeadModel.forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


TEXT = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 20, "num_key_value_heads": 1, "max_position_embeddings": 128}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", SMALL),
    "Mistral": ("MistralForCausalLM", "MistralConfig", {**SMALL, "sliding_window": 4}),
    "Mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2},
    ),
    "T5": ("T5ForConditionalGeneration", "T5Config", {**T5, "decoder_start_token_id": 0}),
}


def model_of(name: str) -> Any:
    transformers = importlib.import_module("transformers")
    model, config, arguments = MODELS[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**TEXT, **arguments)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)  # tokens that differ
    return made


def prompt() -> Any:
    return np.random.default_rng(0).integers(3, 99, (2, 5))


def static(model: Any, length: int) -> Any:
    transformers = importlib.import_module("transformers")
    return transformers.StaticCache(config=model.config, max_cache_len=length)


def full(model: Any, length: int) -> Any:
    """For sliding windows, whose own cache counts in Python: all of the past, and the mask."""
    caches = importlib.import_module("transformers.cache_utils")
    layers = [
        caches.StaticLayer(max_cache_len=length) for _ in range(model.config.num_hidden_layers)
    ]
    return caches.Cache(layers=layers)


@pytest.mark.parametrize(
    ("name", "make"), [("GPT-2", static), ("Llama", static), ("Mistral", full)]
)
def test_greedy_tokens_of_one_compilation(name: str, make: Any, past: str) -> None:
    model = model_of(name)
    net = interop.to_jax(model)
    length, ids, traces = 64, prompt(), []

    def best(output: Any) -> Any:
        return output["logits"][:, -1:].argmax(-1)

    @jax.jit
    def generate(params: Any, ids: Any) -> Any:
        traces.append(ids.shape)

        def step(carry: Any, _: Any) -> Any:
            cache, token = carry
            output = net(params, input_ids=token, **{past: cache})
            return (output[past], best(output)), token[:, 0]

        cache = interop.to_pytree(make(model, ids.shape[1] + length))
        output = net(params, input_ids=ids, **{past: cache})
        carry = output[past], best(output)
        return jax.lax.scan(step, carry, length=length)[1].T

    found = generate(net.params, jnp.asarray(ids, jnp.int32))
    generate(net.params, jnp.asarray(ids[::-1].copy(), jnp.int32))
    with torch.no_grad():
        expected = model.generate(torch.from_numpy(ids), max_new_tokens=length, do_sample=False)
    np.testing.assert_array_equal(found, expected[:, ids.shape[1] :])
    assert len(np.unique(found)) > 8
    assert len(traces) == generate._cache_size() == 1
    assert len(net._compiled) == 2  # the prompt, and a token


@pytest.mark.parametrize("name", ["GPT-2", "Mamba"])
def test_the_cache_that_a_model_makes_itself(name: str, past: str) -> None:
    cache = "cache_params" if name == "Mamba" and past != "cache" else past
    model, ids = model_of(name), prompt()
    net = interop.to_jax(model)
    found = net(net.params, input_ids=jnp.asarray(ids[:, :-1], jnp.int32), use_cache=True)
    assert isinstance(found[cache], interop.Container)
    last = {cache: found[cache], "use_cache": True}
    found = net(net.params, input_ids=jnp.asarray(ids[:, -1:], jnp.int32), **last)
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(ids)).logits[:, -1:]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-4)


def test_encoder_and_decoder(transformers: Any, past: str) -> None:
    model, ids = model_of("T5"), prompt()
    net = interop.to_jax(model, downcast=True)
    both = transformers.EncoderDecoderCache(static(model, 9), static(model, 5))
    inputs = jnp.asarray(ids, jnp.int32)

    @partial(jax.jit, static_argnames="length")
    def generate(params: Any, length: int) -> Any:
        start = jnp.zeros((2, 1), jnp.int32)
        output = net(
            params,
            input_ids=inputs,
            decoder_input_ids=start,
            **{past: interop.to_pytree(both)},
        )
        encoded = (output["encoder_last_hidden_state"],)

        def step(carry: Any, _: Any) -> Any:
            cache, token = carry
            output = net(params, decoder_input_ids=token, encoder_outputs=encoded, **{past: cache})
            return (output[past], output["logits"].argmax(-1)), token[:, 0]

        carry = output[past], output["logits"].argmax(-1)
        return jax.lax.scan(step, carry, length=length)[1].T

    found = generate(net.params, 8)
    with torch.no_grad():
        expected = model.generate(torch.from_numpy(ids), max_new_tokens=8, do_sample=False)
    np.testing.assert_array_equal(found, expected[:, 1:])

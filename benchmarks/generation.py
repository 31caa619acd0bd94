"""Greedy generation by converted language models, against torch's own generate.

One process runs every side in turn, the same random weights and prompts; the table gives medians of
milliseconds a token, for whole generations, and ratios of ours to theirs: below one, ours is
faster. Ours is one compiled scan over a static cache. Usage:

    python benchmarks/generation.py [--layers 12] [--width 768] [--batch 1] [--prompt 32]
        [--tokens 64] [--repeats 5] [--output FILE]
"""

import argparse
import inspect
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

import interop

VOCABULARY = 50_257
# The cache's name as an input and an output: the other one before transformers 5.24.
CACHE = (
    "cache"
    if "cache" in inspect.signature(transformers.GPT2LMHeadModel.forward).parameters
    else "past_key_values"
)
PAUSE = 0.2


def gpt2(options: Any) -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=options.layers,
            n_embd=options.width,
            n_head=options.width // 64,
            n_positions=options.prompt + options.tokens,
            vocab_size=VOCABULARY,
            eos_token_id=None,
            pad_token_id=0,
        )
    ).eval()


def llama(options: Any) -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            num_hidden_layers=options.layers,
            hidden_size=options.width,
            intermediate_size=4 * options.width,
            num_attention_heads=options.width // 64,
            num_key_value_heads=options.width // 64,
            max_position_embeddings=options.prompt + options.tokens,
            vocab_size=VOCABULARY,
            eos_token_id=None,
            pad_token_id=0,
        )
    ).eval()


MODELS: dict[str, Callable[[Any], Any]] = {"GPT-2": gpt2, "Llama": llama}


def our_side(model: Any, ids: np.ndarray, tokens: int) -> tuple[Callable[[], Any], float, float]:
    """The generation, and seconds to convert and to compile it."""
    started = time.perf_counter()
    net = interop.to_jax(model)

    def best(output: Any) -> Any:
        return output["logits"][:, -1:].argmax(-1)

    @partial(jax.jit, static_argnames="length")
    def generate(params: Any, prompt: Any, length: int) -> Any:
        cache = transformers.StaticCache(config=model.config, max_cache_len=ids.shape[1] + length)
        output = net(params, input_ids=prompt, **{CACHE: interop.to_pytree(cache)})

        def step(carry: Any, _: Any) -> Any:
            cache, token = carry
            output = net(params, input_ids=token, **{CACHE: cache})
            return (output[CACHE], best(output)), token[:, 0]

        carry = output[CACHE], best(output)
        return jax.lax.scan(step, carry, length=length)[1].T

    prompt = jnp.asarray(ids, jnp.int32)
    lowered = generate.lower(net.params, prompt, length=tokens)
    converted = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    return (
        lambda: np.asarray(compiled(net.params, prompt)),
        converted - started,
        done - converted,
    )


def torch_side(model: Any, ids: np.ndarray, tokens: int, cache: str | None) -> Callable[[], Any]:
    prompt = torch.from_numpy(ids)
    options = {} if cache is None else {"cache_implementation": cache, "disable_compile": True}

    def run() -> Any:
        with torch.inference_mode():
            found = model.generate(prompt, max_new_tokens=tokens, do_sample=False, **options)
        return found[:, ids.shape[1] :].numpy()

    return run


def in_turn(sides: dict[str, Callable[[], Any]], repeats: int, tokens: int) -> dict[str, float]:
    """Median milliseconds a token of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            side()
            times[name].append(1e3 * (time.perf_counter() - started) / tokens)
    return {name: statistics.median(t) for name, t in times.items()}


def row(name: str, options: Any) -> str:
    torch.manual_seed(0)
    model = MODELS[name](options)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, VOCABULARY, (options.batch, options.prompt))
    ours, converting, compiling = our_side(model, ids, options.tokens)
    sides = {
        "ours": ours,
        "dynamic": torch_side(model, ids, options.tokens, None),
        "static": torch_side(model, ids, options.tokens, "static"),
    }
    found = {side: run() for side, run in sides.items()}  # untimed, the first of each
    same = float((found["ours"] == found["dynamic"]).mean())
    times = in_turn(sides, options.repeats, options.tokens)
    ratios = []
    for other in ("dynamic", "static"):
        ratio = times["ours"] / times[other]
        ratios.append(f"{ratio:.2f}" if ratio <= 1 else f"**{ratio:.2f}**")
    return (
        f"| {name} | {times['ours']:.2f} | {times['dynamic']:.2f} | {times['static']:.2f} | "
        f"{' | '.join(ratios)} | {100 * same:.0f} % | {converting:.1f} | {compiling:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    rows = [row(name, options) for name in options.models.split(",")]
    lines = [
        "# Greedy generation by converted language models, on cpu",
        "",
        f"{options.layers} layers of {options.width}, a vocabulary of {VOCABULARY:,}, random "
        f"weights in float32; batch {options.batch}, a prompt of {options.prompt} and "
        f"{options.tokens} new tokens. Milliseconds a token, the prompt's share among it; medians "
        f"of {options.repeats} whole generations, all sides in turn in one process after an "
        "untimed one. Ours is one compiled scan over a static cache, torch's is `generate` with a "
        "dynamic and with a static cache, eager. Ratios below one mean that ours is faster. Equal "
        "tokens are those that both give: greedy choices part where logits are within rounding.",
        "",
        "| model | ours, ms | torch dynamic, ms | torch static, ms | ours / dynamic | "
        "ours / static | equal tokens | converting, s | compiling, s |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"jax {jax.__version__}, torch {torch.__version__}, transformers "
        f"{version('transformers')}; Python {platform.python_version()}; {platform.machine()}, "
        f"{os.cpu_count()} cores; torch on {torch.get_num_threads()} threads",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()

"""Bayesian layers between torch and JAX: weight_mu and weight_log_sigma, in and out."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch
from torch import nn

import funcvi as fv
import interop
from funcvi.networks import layers_found

NAMES = ["weight_mu", "weight_log_sigma", "bias_mu", "bias_log_sigma"]


class BayesianLinear(nn.Module):
    """As it is written by hand."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.weight_mu = nn.Parameter(torch.randn(out, features))
        self.weight_log_sigma = nn.Parameter(torch.full((out, features), -2.0))
        self.bias_mu = nn.Parameter(torch.randn(out))
        self.bias_log_sigma = nn.Parameter(torch.full((out,), -1.0))

    def forward(self, x: Any) -> Any:
        weight = self.weight_mu + self.weight_log_sigma.exp() * torch.randn_like(self.weight_mu)
        bias = self.bias_mu + self.bias_log_sigma.exp() * torch.randn_like(self.bias_mu)
        return x @ weight.T + bias


def linear() -> Any:
    torch.manual_seed(0)
    net = interop.to_jax(nn.Linear(3, 2))
    return net, fv.bayesian(net, net.params, dist.Normal(0.0, 1.0), scale=0.1)


def test_a_checkpoint_goes_in_and_out_under_its_names(tmp_path: Any) -> None:
    torch.manual_seed(1)
    theirs = BayesianLinear(3, 2)
    interop.save(tmp_path / "layer.pt", dict(theirs.state_dict()))
    _, net = linear()
    params = net.from_mu_log_sigma(interop.load(tmp_path / "layer.pt"))
    back = net.to_mu_log_sigma(params)
    assert set(back) == set(NAMES)
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(back[name], tensor, rtol=1e-5, atol=1e-6)
    interop.save(tmp_path / "back.safetensors", back)
    BayesianLinear(3, 2).load_state_dict(
        interop.to_state_dict(interop.load(tmp_path / "back.safetensors"))
    )
    x = torch.randn(4, 3)
    draws = torch.stack([theirs(x) for _ in range(4000)]).detach()
    ours = net.predict(params, jnp.asarray(x.numpy()), key=jax.random.key(0), num_samples=4000)
    error = 5 * draws.std(0).numpy() * np.sqrt(2 / 4000)
    assert (np.abs(np.asarray(ours.mean(0)) - draws.mean(0).numpy()) < error).all()
    assert (np.abs(np.asarray(ours.std(0)) - draws.std(0).numpy()) < error).all()


def test_the_posterior_goes_back_to_torch() -> None:
    module, (net, bayesian) = nn.Linear(3, 2), linear()
    interop.load_into(module, bayesian.mean(bayesian.params))
    np.testing.assert_allclose(module.weight.detach(), net.params["weight"], rtol=1e-6)
    layer = interop.to_sampling_module(module, bayesian.to_mu_log_sigma(bayesian.params))
    assert set(layer.state_dict()) == set(NAMES)
    assert "weight" in dict(module.named_parameters())
    x = torch.randn(4, 3)
    assert (layer(x) != layer(x)).all()
    draws = torch.stack([layer(x) for _ in range(4000)]).detach()
    np.testing.assert_allclose(draws.mean(0), module(x).detach(), atol=0.05)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    layer.sampling = False
    torch.testing.assert_close(layer(x), module(x))


def test_only_the_last_layer_is_random() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    net = interop.to_jax(module)
    bayesian = fv.bayesian(net, net.params, dist.Normal(0.0, 1.0), only=["2.*"])
    made = interop.to_sampling_module(module, bayesian.to_mu_log_sigma(bayesian.params))
    assert "0.weight" in made.state_dict()
    assert "2.weight_mu" in made.state_dict()
    x = torch.randn(4, 3)
    assert (made(x) != made(x)).all()


def test_wrong_names_are_listed() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"'weight_mu' comes without 'weight_log_sigma'"):
        interop.to_sampling_module(module, {"weight_mu": torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"'kernel' fits no parameter"):
        interop.to_sampling_module(module, {"kernel": torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"'bias' is missing"):
        interop.to_sampling_module(module, {"weight": torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"'bias': shape \(3,\), the parameter has \(2,\)"):
        interop.to_sampling_module(module, {"weight": torch.ones(2, 3), "bias": torch.ones(3)})
    _, net = linear()
    with pytest.raises(ValueError, match=r"'bias_mu' is missing.*'other' is unknown"):
        net.from_mu_log_sigma({n: jnp.ones(2) for n in [*NAMES[:2], NAMES[3], "other"]})


def test_layers_of_a_converted_module_are_found() -> None:
    """Each weight enters one product or convolution, behind whatever export made of it."""
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
        torch.nn.LayerNorm(5),
        torch.nn.Linear(5, 3, bias=False),
    )
    net = interop.to_jax(module)
    found = layers_found(net, net.params, jnp.ones((4, 1, 4, 4)))
    layers = {"0.weight": "flipout", "3.weight": "local", "5.weight": "local"}
    assert {n: v.kind for n, v in found.items()} == {n: layers.get(n, "plain") for n in net.params}


def test_buffers_are_a_state() -> None:
    """Batch normalisation of torch, in training mode and in evaluation mode."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    net = interop.to_jax(module)

    def function(params: Any, x: Any, state: Any, train: bool = True) -> Any:
        if train:
            return net.train(params, x, buffers=state)
        return net(params, x, buffers=state), state

    bnn = fv.bayesian(function, net.params, dist.Normal(0.0, 1.0), state=net.buffers)
    x, y = jnp.ones((6, 3)) * jnp.arange(6.0)[:, None], jnp.ones((6, 1))
    found = layers_found(bnn, bnn.params, x)
    kinds = {n: v.kind for n, v in found.items() if v.kind != "plain"}
    assert kinds == {"0.weight": "refused", "3.weight": "local"}  # rows meet in the statistics
    loss = bnn.negative_elbo(lambda o, y: dist.Normal(o, 1.0).log_prob(y)[:, 0], data_size=6)
    value, state = jax.jit(loss)(bnn.params, jax.random.key(0), x, y, state=bnn.state)
    assert jnp.isfinite(value)
    assert state["1.num_batches_tracked"] == 1
    assert (state["1.running_mean"] != bnn.state["1.running_mean"]).any()
    draws = bnn.predict(
        bnn.params, x, key=jax.random.key(1), num_samples=2, state=state, train=False
    )
    assert draws.shape == (2, 6, 1)
    with pytest.raises(ValueError, match=r"are buffers, not weights: pass net.params"):
        fv.bayesian(net, {**net.params, **net.buffers}, dist.Normal(0.0, 1.0))


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.embed.weight, self.head.weight


@pytest.mark.parametrize("name", ["embed", "head"])
def test_tied_weights_stay_tied_and_are_drawn_once_a_call(name: str) -> None:
    params = {f"{name}.weight_mu": jnp.zeros((4, 3)), f"{name}.weight_log_sigma": jnp.zeros((4, 3))}
    made = interop.to_sampling_module(Tied(), params)
    assert made.embed.weight_mu is made.head.weight_mu
    assert made.embed.weight_log_sigma is made.head.weight_log_sigma
    assert len(list(made.parameters())) == 2
    one, other = made(torch.zeros(1)), made(torch.zeros(1))
    assert torch.equal(*one)
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(made.embed.weight, made.embed.weight)  # outside a call: anew
    (one[0] * one[1]).sum().backward()
    torch.testing.assert_close(made.embed.weight_mu.grad, 2 * one[0])
    made = interop.to_sampling_module(Tied(), {f"{name}.weight": jnp.ones((4, 3))})
    assert made.embed.weight is made.head.weight


def test_a_tied_weight_under_both_names_is_refused() -> None:
    both = {f"{n}.weight": jnp.ones((4, 3)) for n in ("embed", "head")}
    with pytest.raises(ValueError, match="is tied to another name that is given"):
        interop.to_sampling_module(Tied(), both)


def _same_draws(one: Any, other: Any, *inputs: Any) -> bool:
    def draws(module: Any) -> Any:
        torch.manual_seed(7)
        return torch.stack([module(*inputs) for _ in range(3)])

    return torch.equal(draws(one), draws(other)) and not torch.equal(*draws(one)[:2])


class TiedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x)) if self.training else self.a.weight - self.b.weight


def test_the_whole_module_is_saved_loaded_and_copied(tmp_path: Any) -> None:
    plain = TiedLinear()
    params: dict[str, Any] = {"a.bias": torch.zeros(2), "b.bias_mu": torch.zeros(2)}
    params |= {"a.weight_mu": torch.eye(2), "a.weight_log_sigma": torch.zeros(2, 2)}
    module = interop.to_sampling_module(plain, {**params, "b.bias_log_sigma": torch.ones(2)})
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    x = torch.ones(1, 2)
    for other in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert _same_draws(module, other, x)
        assert list(other.state_dict()) == list(module.state_dict())
        other.eval()
        assert not other(x).any()  # tied still, and drawn once a call
        other.train().b.sampling = False
        assert module.b.sampling
        assert other.a.weight_mu is other.b.weight_mu
    with pytest.raises(interop.CheckpointError, match=r"refused to load .*TiedLinear' at the top"):
        interop.load(tmp_path / "module.pt")


class Own(nn.Linear):
    def __reduce__(self) -> Any:
        return Own, (1, 1)


def test_a_layer_that_pickles_in_its_own_way_says_what_to_save() -> None:
    ones = {n: torch.ones(1, 1) for n in ("weight_mu", "weight_log_sigma")}
    module = interop.to_sampling_module(Own(1, 1), {**ones, "bias": torch.ones(1)})
    with pytest.raises(pickle.PicklingError, match="Own defines how itself: save its state_dict"):
        pickle.dumps(module)

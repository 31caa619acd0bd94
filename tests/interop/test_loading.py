"""Arrays into modules, in place: exact, all or nothing, ties and widening."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop


def network():
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3, bias=False)
    )


def tied():
    module = network()
    module[2].weight = torch.nn.Parameter(torch.ones(4, 3))
    module.add_module("again", torch.nn.Linear(3, 4))
    module.again.weight = module[2].weight
    return module


def arrays(module, kind="parameters"):
    named = getattr(module, f"named_{kind}")()
    return {n: interop.to_array(t + 1, downcast=True) for n, t in named}


def test_parameters_and_buffers_are_written_in_place():
    source, module = network(), network()
    source(torch.randn(8, 3))
    held = dict(module.named_parameters())
    with jax.enable_x64(True):
        params = {n: interop.to_array(t) for n, t in source.named_parameters()}
        buffers = {n: interop.to_array(t) for n, t in source.named_buffers()}
    assert interop.load_into(module, params, buffers) is module
    interop.certify(source, module)
    assert all(held[n] is t for n, t in module.named_parameters())
    assert all(t.requires_grad and t.is_leaf for t in held.values())


def test_a_whole_state_dict_and_a_nested_tree_do_as_well():
    source = network()
    with jax.enable_x64(True):
        state = interop.from_state_dict(source.state_dict())
    interop.certify(interop.load_into(network(), state), source)
    interop.certify(interop.load_into(network(), interop.unflatten_names(state)), source)


def test_a_net_goes_back():
    module = network().eval()
    net = interop.to_jax(module, downcast=True)
    changed = jax.tree.map(lambda x: x * 2, net.params)
    other = interop.load_into(copy.deepcopy(module), changed, net.buffers)
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(
        other(torch.from_numpy(x)).detach(), net(changed, x), rtol=1e-5, atol=1e-6
    )


def test_odd_bits_arrive():
    module = torch.nn.Linear(4, 1, bias=False, dtype=torch.bfloat16)
    raw = np.array([[0x7FC1, 0xFFA5, 0x8000, 0x0001]], np.uint16)
    interop.load_into(module, {"weight": raw.view(jnp.bfloat16)})
    assert module.weight.detach().view(torch.uint16).tolist() == raw.tolist()


def test_strided_parameters_are_written_through_their_strides():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(3, 2).t())
    interop.load_into(module, {"weight": jnp.arange(6.0).reshape(2, 3)})
    assert module.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert module.weight.stride() == (1, 2)


def test_exact_widening_alone_is_allowed():
    module = torch.nn.Module()
    for name, dtype in (("i", torch.int64), ("u", torch.uint64), ("f", torch.float64),
                        ("c", torch.complex128)):  # fmt: skip
        module.register_buffer(name, torch.zeros(2, dtype=dtype))
    interop.load_into(module, {}, {
        "i": np.int32([-1, 2]), "u": np.uint32([1, 2]), "f": np.float32([0.1, 2]),
        "c": np.complex64([0.1j, 2]),
    })  # fmt: skip
    assert module.i.tolist() == [-1, 2]
    assert module.f[0] == float(np.float32(0.1))
    assert module.c[0] == complex(np.complex64(0.1j))
    for name, value in {"i": np.float32([1, 2]), "f": np.float16([1, 2]), "u": np.int32([1, 2]),
                        "c": np.float64([1, 2])}.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"mismatched: '{name}' is"):
            interop.load_into(module, {name: value})
    narrow = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"'bias' is float32 \(1,\), got float64 \(1,\)"):
        interop.load_into(narrow, {"bias": np.zeros(1)}, strict=False)


def test_everything_wrong_is_told_at_once_and_nothing_is_written():
    module = network()
    before = interop.certificate(module)
    params = arrays(module)
    del params["0.bias"]
    params["2.weight"] = jnp.zeros((3, 5))
    params["1.weight"] = jnp.zeros(4, jnp.bfloat16)
    params["nowhere"] = jnp.zeros(1)
    with pytest.raises(ValueError, match="nothing was written") as raised:
        interop.load_into(module, params, {"1.running_mean": jnp.ones(4), "0.weight": jnp.ones(1)})
    for part in (
        "unexpected: 'nowhere'",
        "'2.weight' is float32 (3, 4), got float32 (3, 5)",
        "'1.weight' is float32 (4,), got bfloat16 (4,)",
        "missing: '0.bias', '1.running_var', '1.num_batches_tracked'",
        "given in params and in buffers: '0.weight'",
    ):
        assert part in str(raised.value)
    interop.certify(before, module)


def test_a_subset_when_not_strict():
    module = network()
    interop.load_into(module, {"0.bias": jnp.full(4, 7.0)}, strict=False)
    assert module[0].bias.tolist() == [7.0] * 4
    with pytest.raises(ValueError, match="unexpected: 'other'"):
        interop.load_into(module, {"other": jnp.zeros(1)}, strict=False)


def test_buffers_are_optional():
    module = network()
    interop.load_into(module, arrays(module))
    assert module[1].running_mean.tolist() == [0.0] * 4


def test_unsaved_buffers_may_be_given():
    module = torch.nn.Module()
    module.register_buffer("saved", torch.zeros(1))
    module.register_buffer("scratch", torch.zeros(1), persistent=False)
    interop.load_into(module, {}, {"saved": jnp.ones(1)})
    interop.load_into(module, {}, {"saved": jnp.ones(1), "scratch": jnp.ones(1)})
    assert module.scratch.item() == 1.0


@pytest.mark.parametrize("names", [["2.weight"], ["again.weight"], ["again.weight", "2.weight"]])
def test_ties_under_any_of_their_names(names):
    module = tied()
    params = {n: a for n, a in arrays(module).items() if n != "2.weight"}
    interop.load_into(module, params | {n: jnp.full((4, 3), 5.0) for n in names})
    assert module.again.weight is module[2].weight
    assert module[2].weight.unique().item() == 5.0


def test_ties_that_differ_or_are_missing_name_both():
    module = tied()
    params = arrays(module) | {"again.weight": jnp.full((4, 3), 5.0)}
    with pytest.raises(ValueError, match=r"different here: '2.weight' and 'again.weight'"):
        interop.load_into(module, params)
    del params["again.weight"], params["2.weight"]
    with pytest.raises(ValueError, match=r"missing: '2.weight'\. strict=False"):
        interop.load_into(module, params)


def test_tensors_that_cannot_be_written():
    module = torch.nn.Module()
    module.register_buffer("wide", torch.zeros(1).expand(3))
    with torch.inference_mode():
        module.register_buffer("frozen", torch.zeros(3))
    module.register_buffer("base", torch.zeros(4))
    module.register_buffer("part", module.base[1:])
    module.register_buffer("away", torch.zeros(3, device="meta"))
    module.lazy = torch.nn.LazyLinear(2)
    for name, shape, what in (
        ("wide", 3, "expanded view"),
        ("frozen", 3, "inference mode"),
        ("away", 3, "to_empty"),
        ("lazy.weight", 3, "call the module once"),
    ):
        with pytest.raises(ValueError, match=f"'{name}' .*{what}"):
            interop.load_into(module, {name: jnp.ones(shape)}, strict=False)
    with pytest.raises(ValueError, match=r"overlapping .*: 'base' and 'part'"):
        interop.load_into(module, {"base": jnp.ones(4), "part": jnp.ones(3)}, strict=False)
    interop.load_into(module, {"part": jnp.ones(3)}, strict=False)
    assert module.base.tolist() == [0.0, 1.0, 1.0, 1.0]


def test_what_is_no_module_and_what_is_no_array():
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module, got dict"):
        interop.load_into({}, {})
    with pytest.raises(TypeError, match=r"'0.bias': expected a JAX or numpy array, got float"):
        interop.load_into(network(), {"0.bias": 1.0}, strict=False)

"""What interop takes from torch's private names does what it is used for."""

import sys
import threading
import warnings

import pytest
import torch

from interop import _torch
from interop._torch import aliases, decompositions, is_composite, is_mutable, tables_of
from interop.from_torch import functions

ATEN = torch.ops.aten


def test_operations_say_what_they_write_and_share() -> None:
    assert isinstance(ATEN.add.Tensor, _torch.OpOverload)
    assert isinstance(torch.ops.higher_order.cond, _torch.HigherOrderOperator)
    assert [is_mutable(f) for f in (ATEN.add.Tensor, ATEN.add_.Tensor, len)] == [False, True, False]
    assert [aliases(f) for f in (ATEN.add.Tensor, ATEN.view.default, len)] == [False, True, False]


def test_composite_operations_are_taken_apart() -> None:
    assert is_composite(ATEN.linear.default)
    assert not is_composite(ATEN.mm.default)
    x, w = torch.ones(2, 3), torch.ones(4, 3)
    torch.testing.assert_close(ATEN.linear.default.decompose(x, w), x @ w.T)


def test_decompositions_are_of_operations_and_say_the_same() -> None:
    core, others = decompositions()
    x = torch.linspace(-1, 1, 5)
    for table, operation, args in (
        (core, ATEN.hardsigmoid.default, (x,)),
        (others, ATEN.silu.default, (x,)),
    ):
        torch.testing.assert_close(table[operation](*args), operation(*args))


def test_batch_norm_in_evaluation() -> None:
    x, mean, var = torch.randn(5, 2), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    out, *_ = _torch.batch_norm_evaluated(x, None, None, mean, var, 0.1, 1e-5)
    expected = torch.nn.functional.batch_norm(x, mean, var, training=False)
    torch.testing.assert_close(out, expected)


def test_graph_of_its_own() -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(2),))
    other = _torch.with_own_graph(program)
    for node in list(other.graph.nodes):
        if node.op == "call_function":
            node.target = ATEN.neg.default
    other.graph_module.recompile()
    names = [[str(n.target) for n in p.graph.nodes] for p in (program, other)]
    assert "aten.relu.default" in names[0]
    assert "aten.neg.default" in names[1]


def test_what_a_module_holds() -> None:
    module = torch.nn.BatchNorm1d(2)
    module.kept = torch.ones(1)
    assert isinstance(module, _torch.BatchNorm)
    names = {name for table in tables_of(module) for name in table}
    assert {"weight", "running_mean", "kept"} <= names
    assert not isinstance(torch.nn.LayerNorm(2), _torch.BatchNorm)


@pytest.mark.parametrize(
    "add",
    [
        lambda m: m.register_full_backward_hook(lambda *_: None),
        lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    ],
)
def test_hooks_are_seen(add) -> None:
    module = torch.nn.Linear(2, 2)
    assert not _torch.has_backward_hooks(module)
    handle = add(module)
    assert _torch.has_backward_hooks(module)
    handle.remove()
    assert not _torch.has_backward_hooks(module)
    assert not _torch.has_backward_hooks(module.weight)
    module.weight.register_hook(lambda g: g)
    assert _torch.has_backward_hooks(module.weight)


def test_plain_tensors_are_told_from_stand_ins() -> None:
    seen = []
    torch.func.grad(lambda x: seen.append(_torch.is_plain(x)) or x.sum())(torch.ones(2))
    with torch._subclasses.fake_tensor.FakeTensorMode():
        seen.append(_torch.is_plain(torch.ones(2)))
    torch.func.functionalize(lambda x: seen.append(_torch.is_plain(x)) or x + 1)(torch.ones(2))
    seen.append(_torch.is_plain(torch._to_functional_tensor(torch.ones(2))))
    assert seen == [False] * 4
    assert _torch.is_plain(torch.ones(2))
    assert _torch.is_plain(torch.nn.Parameter(torch.ones(2)))


def test_what_distributions_are_made_of() -> None:
    assert bool(_torch.all_true(torch.tensor([True, True])))
    assert not bool(_torch.all_true(torch.tensor([True, False])))
    torch.testing.assert_close(_torch.sample_dirichlet(torch.ones(5, 3)).sum(-1), torch.ones(5))
    concentration = torch.ones(3, requires_grad=True)
    _torch.Dirichlet.apply(concentration)[0].backward()
    assert concentration.grad is not None


def test_differentiation_is_seen() -> None:
    seen = []
    f = lambda x: seen.append(_torch.is_differentiating()) or x.sum()  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's forward mode begins with what it deprecates
        for take in (lambda f: f, torch.func.grad, torch.func.jacfwd, torch.func.vmap):
            take(f)(torch.ones(2))
    assert seen == [False, True, True, False]


def test_reading_data_and_setting_a_flag_are_seen_by_modes() -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2)
    with Mode():
        _ = x.data
        x.requires_grad = True
    assert seen[0] == _torch.data_getter()
    assert _torch.flag_setter() in seen


def test_functions_are_intercepted_in_this_thread_alone() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    found = []
    with _torch.intercepted_functions(lambda kind, apply, x: apply(x) + 1):
        thread = threading.Thread(target=lambda: found.append(float(Double.apply(torch.ones(())))))
        thread.start()
        thread.join()
        found.append(float(Double.apply(torch.ones(()))))
    found.append(float(Double.apply(torch.ones(()))))
    assert found == [2.0, 3.0, 2.0]
    assert torch.autograd.Function.__dict__["apply"] is _torch._apply


def test_unused_operations_are_kept() -> None:
    class Unused(torch.nn.Module):
        def forward(self, x):
            torch.ops.interop.hooked([x], 0)
            return x + 1

    with functions.calls_recorded([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own
        program = torch.export.export(Unused(), (torch.ones(2),)).run_decompositions({})
    assert "interop.hooked.default" in {str(n.target) for n in program.graph.nodes}


def test_fake_tensors_and_trees() -> None:
    leaves, spec = _torch.pytree.tree_flatten(({"a": 1}, [2, None]))
    assert leaves == [1, 2, None]
    assert _torch.pytree.tree_unflatten(leaves, spec) == ({"a": 1}, [2, None])
    with torch._subclasses.fake_tensor.FakeTensorMode():
        assert isinstance(torch.ones(2), _torch.FakeTensor)
    assert not isinstance(torch.ones(2), _torch.FakeTensor)


def test_modes_of_function_calls_are_taken_off_and_put_back() -> None:
    seen = []

    class Watches(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2)
    with Watches():
        with _torch.without_function_modes():
            torch.neg(x)
        assert not seen
        torch.abs(x)
        assert seen == [torch.abs]
        seen.clear()
        _ = x.shape, x.ndim, x.stride(), x.is_contiguous()
    assert len(seen) == 4
    assert set(seen) <= _torch.METADATA


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: list(x.nonzero()),
        lambda x: range(int(x.sum())),
    ],
)
def test_asking_for_values_while_tracing_is_told_by_its_type(ask) -> None:
    seen = []

    class Asks(torch.nn.Module):
        def forward(self, x):
            try:
                ask(x)
            except Exception as error:
                seen.append(isinstance(error, _torch.DATA_DEPENDENT))
            return x

    torch.export.export(Asks(), (torch.ones(3),), strict=False)
    assert seen
    assert all(seen)


def test_stand_ins_that_refuse_values_are_told_too() -> None:
    with torch._subclasses.FakeTensorMode():
        for ask in (lambda x: x.sum().item(), lambda x: x.nonzero()):
            with pytest.raises(_torch.DATA_DEPENDENT):
                ask(torch.ones(3))


def test_tensors_have_values_outside_tracing() -> None:
    found = []

    class Looks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with _torch.outside_tracing():
                found.append(torch.arange(3).sum().item())
            return x + 1

    torch.export.export(Looks(), (torch.ones(2),), strict=False)
    assert found
    assert set(found) == {3}


def test_setting_data_and_reading_a_gradient_are_seen_by_modes() -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    with Mode():
        x.data = torch.zeros(2)
        _ = x.grad
        torch.autograd.grad((x * 2).sum(), x)
    assert _torch.data_setter() in seen
    assert _torch.gradient_getter() in seen
    assert torch.autograd.grad in seen


def test_functionals_detach_what_requires_no_gradient() -> None:
    x = torch.ones(2)
    (detached,) = _torch.functional_inputs((x,), True, True)
    assert detached is not x
    assert detached.requires_grad
    (kept,) = _torch.functional_inputs((x.requires_grad_(),), True, True)
    assert kept.grad_fn is not None


def test_writes_are_counted_and_memory_is_compared() -> None:
    x = torch.ones(3)
    alias, part, other = x.detach(), x[:2], x.clone()
    before = _torch.version(x)
    part.zero_()
    assert _torch.version(x) == _torch.version(alias) == before + 1
    assert _torch.share_memory(x, alias)
    assert _torch.share_memory(part, alias)
    assert not _torch.share_memory(x, other)


def test_sequences_are_packed_and_unpacked() -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Mode():
        packed = torch.nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), [3, 1])
        torch.nn.utils.rnn.pad_packed_sequence(packed)
    assert _torch.pack in seen
    assert _torch.unpack in seen


def test_von_mises_angles_are_drawn_by_the_sampler() -> None:
    seen = set()

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.add(sys._getframe(1).f_code)
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.distributions.VonMises(torch.zeros(2), torch.ones(2)).sample()
    assert _torch.rejection_sampler.__code__ in seen

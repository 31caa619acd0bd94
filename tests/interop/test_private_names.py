"""What interop takes from torch's private names does what it is used for."""

import pytest
import torch

from interop import _torch
from interop._torch import aliases, decompositions, is_composite, is_mutable, tables_of

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


def test_fake_tensors_and_trees() -> None:
    leaves, spec = _torch.pytree.tree_flatten(({"a": 1}, [2, None]))
    assert leaves == [1, 2, None]
    assert _torch.pytree.tree_unflatten(leaves, spec) == ({"a": 1}, [2, None])
    with torch._subclasses.fake_tensor.FakeTensorMode():
        assert isinstance(torch.ones(2), _torch.FakeTensor)
    assert not isinstance(torch.ones(2), _torch.FakeTensor)

"""Tensors to arrays and back: every dtype, every bit, every kind of stride; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from interop.arrays import array_dtype, to_array, to_tensor, torch_dtype
from interop.dtypes import ROWS
from interop.errors import ConversionError

WIDE = [row for row in ROWS if row.narrow is not None]
by_name = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def tensor_of(row, raw):
    raw = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    return raw > 127 if row.name == "bool" else raw.view(row.torch)


def bits(x):
    """The bytes in C order, by the shortest way of each side."""
    if isinstance(x, torch.Tensor):
        flat = x.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return bytes(flat.view(torch.uint8).numpy()) if x.numel() else b""
    return np.asarray(x).tobytes()


def views(t):
    """A tensor of shape (2, 3, 4) in many strides."""
    yield t
    yield t.mT
    yield t.permute(2, 0, 1)
    yield t[:, 1:, ::2]
    yield t[1, 2, 3]
    yield t[:, :0]
    yield t[:, :, :1].expand(2, 3, 5)
    yield t.as_strided((2, 2), (1, 1))


def every_bit(row):
    """All patterns of small dtypes; of others zeros, subnormals, infinities and NaN payloads."""
    width = row.array.itemsize
    if width == 1:
        return bytes(range(256))
    if width == 2:
        return np.arange(2**16, dtype=np.uint16).tobytes()
    part = width // 2 if row.array.kind == "c" else width
    mantissa = 23 if part == 4 else 52
    ones = (1 << (8 * part - 1 - mantissa)) - 1
    patterns = [
        sign << (8 * part - 1) | exponent << mantissa | fraction
        for sign in (0, 1)
        for exponent in (0, 1, ones // 2, ones - 1, ones)
        for fraction in (0, 1, 2, 1 << (mantissa - 1), (1 << mantissa) - 1, 12345)
    ]
    return b"".join(p.to_bytes(part, "little") for p in patterns)


@by_name
def test_every_bit_pattern_goes_there_and_back(row):
    with jax.enable_x64(True):
        tensor = tensor_of(row, every_bit(row))
        array = to_array(tensor)
        back = to_tensor(array)
    assert (array.dtype, back.dtype) == (row.array, row.torch)
    assert bits(array) == bits(tensor) == bits(back)


@by_name
def test_strides_make_no_difference(row):
    with jax.enable_x64(True):
        for view in views(tensor_of(row, bytes(range(24)) * row.array.itemsize).reshape(2, 3, 4)):
            array = to_array(view)
            back = to_tensor(array)
            assert array.shape == tuple(view.shape) == tuple(back.shape)
            assert bits(array) == bits(view) == bits(back)
            assert back.is_contiguous()


@settings(deadline=None, max_examples=60)
@given(
    row=st.sampled_from(ROWS),
    raw=st.binary(min_size=96 * 16, max_size=96 * 16),
    axes=st.permutations(range(3)),
    steps=st.tuples(*[st.integers(1, 3)] * 3),
    starts=st.tuples(*[st.integers(0, 2)] * 3),
)
def test_random_bits_in_random_strides(row, raw, axes, steps, starts):
    tensor = tensor_of(row, raw)[:96].reshape(4, 4, 6)
    slices = [slice(a, None, b) for a, b in zip(starts, steps, strict=True)]
    view = tensor.permute(*axes)[tuple(slices)]
    with jax.enable_x64(True):
        array = to_array(view)
        assert bits(array) == bits(view)
        assert bits(to_tensor(array)) == bits(view)


def test_lazy_conjugation_negation_and_gradients_are_resolved():
    z = torch.tensor([1 + 2j, -0.0 - 3j])
    assert to_array(z.conj()).tolist() == [1 - 2j, 3j]
    assert to_array(z.conj().imag).tolist() == [-2.0, 3.0]
    leaf = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    assert to_array(leaf).tolist() == [1.0, 2.0]
    assert to_array(leaf * 2).tolist() == [2.0, 4.0]


def test_copies_share_nothing():
    tensor = torch.zeros(64)
    array = to_array(tensor)
    back = to_tensor(array)
    tensor.add_(1)
    back.add_(2)
    assert array.sum() == 0
    numbers = np.zeros(3, np.float32)
    copy = to_tensor(numbers)
    numbers += 1
    assert copy.sum() == 0


@pytest.mark.parametrize("row", [r for r in ROWS if r.narrow is None], ids=lambda r: r.name)
def test_sharing_is_one_memory_both_ways(row):
    array = jnp.asarray(np.zeros(64, row.array))
    tensor = to_tensor(array, share=True)
    assert tensor.dtype == row.torch
    assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    again = to_array(tensor, share=True)
    assert again.unsafe_buffer_pointer() == tensor.data_ptr()
    tensor.view(torch.uint8)[0] = 1  # the danger that the docstring tells of
    assert bits(again)[0] == bits(array)[0] == 1


def test_sharing_a_parameter_and_a_transposed_tensor():
    weight = torch.nn.Parameter(to_tensor(jnp.ones((16, 8)), share=True))
    assert to_array(weight.T, share=True).shape == (8, 16)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(65)[1:], torch.zeros(8, 8)[:, ::2], torch.zeros(1).expand(4),
     torch.zeros(2, dtype=torch.complex64).conj()],
    ids=["unaligned", "sliced", "expanded", "conjugated"],
)  # fmt: skip
def test_what_cannot_be_shared(tensor):
    with pytest.raises(ConversionError, match=r"'w' .* cannot be shared .*; share=False copies"):
        to_array(tensor, share=True, name="w")
    assert to_array(tensor).shape == tuple(tensor.shape)


def test_what_cannot_be_shared_with_torch_and_not_narrowed():
    frozen = np.zeros(3, np.float32).astype(">f4")
    with pytest.raises(ConversionError, match=r"'w' .* cannot be shared with torch"):
        to_tensor(frozen, share=True, name="w")
    with pytest.raises(ConversionError, match="exclude each other"):
        to_array(torch.zeros(3, dtype=torch.float64), share=True, downcast=True)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("row", WIDE, ids=lambda row: row.name)
def test_without_x64_wide_dtypes_name_both_ways_out(row, share):
    with pytest.raises(ConversionError) as raised:
        to_array(torch.zeros(2, dtype=row.torch), name="bn.steps", share=share)
    for part in ("'bn.steps'", row.name, "jax_enable_x64", "downcast=True", row.narrow):
        assert part in str(raised.value)
    with jax.enable_x64(True):
        assert to_array(torch.zeros(2, dtype=row.torch), share=share).dtype == row.array


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("row", WIDE, ids=lambda row: row.name)
def test_downcast_rounds_or_fits(row, x64):
    with jax.enable_x64(x64):
        array = to_array(torch.tensor([0, 1, 7]).to(row.torch), downcast=True)
    assert array.dtype == row.narrow
    assert array.tolist() == [0, 1, 7]


@pytest.mark.parametrize(
    "values",
    [torch.tensor([2**31]), torch.tensor([-(2**31) - 1]),
     torch.tensor([2**32], dtype=torch.uint64), torch.tensor([1e39], dtype=torch.float64),
     torch.tensor([1e39j], dtype=torch.complex128)],
    ids=lambda t: f"{t.dtype}",
)  # fmt: skip
def test_downcast_refuses_what_does_not_fit(values):
    with pytest.raises(ConversionError, match=r"'n' has \w+ values that do not fit .*x64"):
        to_array(values, downcast=True, name="n")


def test_downcast_keeps_infinities_and_nan():
    wide = torch.tensor([torch.inf, -torch.inf, torch.nan, 1 / 3], dtype=torch.float64)
    np.testing.assert_array_equal(
        to_array(wide, downcast=True), np.array([np.inf, -np.inf, np.nan, np.float32(1 / 3)])
    )


def test_numpy_in_any_byte_order_and_scalars():
    numbers = np.arange(6, dtype=">i4").reshape(2, 3)
    assert to_tensor(numbers).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert to_tensor(numbers.T[::-1]).tolist() == numbers.T[::-1].tolist()
    assert to_tensor(np.float64(2.5)).dtype == torch.float64
    assert to_tensor(np.float64(2.5)).shape == ()
    assert to_tensor(np.asarray(jnp.zeros((0, 3), jnp.bfloat16))).shape == (0, 3)


def fake():
    with FakeTensorMode():
        return torch.zeros(2)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.zeros(2, device="meta"), "meta device"),
        (fake, "meta device"),
        (lambda: torch.eye(2).to_sparse(), "to_dense"),
        (lambda: torch.empty(2, dtype=torch.complex32), "complex64"),
        (lambda: torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "float4"),
        (lambda: [1.0], "expected a torch.Tensor, got list"),
    ],
    ids=["meta", "fake", "sparse", "half complex", "packed", "list"],
)
def test_tensors_without_counterpart_are_named(make, what):
    with pytest.raises(TypeError, match=what) as raised:
        to_array(make(), name="layer.weight")
    assert "'layer.weight'" in str(raised.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_and_nested_tensors_are_named():
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=r"'w' is quantised .*dequantize"):
        to_array(quantised, name="w")
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(TypeError, match=r"'w' is nested"):
        to_array(nested, name="w")
    with pytest.raises(TypeError, match=r"'w'.*to_dense"):
        to_array(torch.eye(2).to_sparse_csr(), name="w")


def test_arrays_without_counterpart_are_named():
    deleted = jnp.zeros(2)
    deleted.delete()
    for array, error, what in (
        (jnp.zeros(2, jnp.int4), TypeError, "int4, which torch has not"),
        (np.array(["a"]), TypeError, "which torch has not"),
        (np.zeros(2, "f4,i4"), TypeError, "which torch has not"),
        (jax.random.key(0), TypeError, "key_data"),
        (1.0, TypeError, "expected a JAX or numpy array, got float"),
        (deleted, ConversionError, "donated or deleted"),
    ):
        with pytest.raises(error, match=what) as raised:
            to_tensor(array, name="a.b")
        assert "'a.b'" in str(raised.value)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(to_tensor)(jnp.zeros(2))


def test_under_a_trace_a_tensor_becomes_a_concrete_constant():
    @jax.jit
    def f(x):
        constant = to_array(torch.ones(2))
        assert not isinstance(constant, jax.core.Tracer)
        return x + constant

    assert f(jnp.zeros(2)).tolist() == [1.0, 1.0]


@by_name
def test_the_tables_are_inverse(row):
    assert array_dtype(row.torch) == row.array
    assert torch_dtype(row.array) == row.torch
    assert torch.empty(0, dtype=row.torch).element_size() == row.array.itemsize


def test_every_dtype_of_torch_is_in_the_table_or_refused():
    for dtype in {d for d in vars(torch).values() if isinstance(d, torch.dtype)}:
        if dtype not in {row.torch for row in ROWS}:
            with pytest.raises(TypeError, match="has no counterpart in JAX"):
                array_dtype(dtype)
    for dtype in (jnp.int4, np.dtype("U3"), jax.random.key(0).dtype, torch.float32):
        with pytest.raises(TypeError, match="has no counterpart in torch"):
            torch_dtype(dtype)
    with pytest.raises(TypeError, match="expected a torch dtype"):
        array_dtype(np.dtype("float32"))

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.multiprocessing.reductions import StorageWeakRef

from gfb_brevitas.quant import IntegerFormat, fake_quantize
from gfb_brevitas.quant.batchnorm_output import batchnorm_output, computed
from gfb_brevitas.quant.compiling import compiler_available
from gfb_brevitas.quant.fake_quantize import quantize_values
from gfb_brevitas.quant.kernels import like, without_gaps
from tests.core.quant.brevitas_oracle import FORMATS, format_name

SIGNED = IntegerFormat.plain(signed=True, narrow_range=True)
UNSIGNED = IntegerFormat.plain(signed=False, narrow_range=False)

needs_compiler = pytest.mark.skipif(not compiler_available("cpu"), reason="needs a C++ compiler")


def operation_by_operation(
    x: Tensor, clipping: Tensor, bits: int, integers: IntegerFormat, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, gradient for x and for the clipping value: the formulas as they stand, summed in double."""
    scale = clipping / clipping.new_full((), integers.threshold(bits))
    quantized = quantize_values(x, scale, bits, integers)
    low, high = (end * clipping for end in integers.range_in_clippings(bits))
    inside = (x >= low) & (x <= high)
    per_element = gradient * (quantized - x * inside) / clipping
    return quantized, gradient * inside, per_element.double().sum().to(clipping.dtype)


def quantized_with_gradients(x, clipping, bits, integers, gradient, *, rectify=False):
    x, clipping = x.detach().requires_grad_(), clipping.detach().requires_grad_()
    values, _ = fake_quantize(x, clipping, bits, integers, rectify=rectify)
    return values.detach(), *torch.autograd.grad(values, (x, clipping), gradient)


def assert_same(one, other):
    for got, wanted in zip(one[:2], other[:2], strict=True):
        assert torch.equal(got, wanted)
    torch.testing.assert_close(one[2], other[2], rtol=2e-5, atol=1e-3)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "row": normal(100_001),
        "images": normal(16, 32, 16, 16),
        "channels_last": normal(8, 48, 17, 15).contiguous(memory_format=torch.channels_last),
        "permuted": normal(40, 50, 60).permute(1, 2, 0),
        "with_gaps": normal(300, 600)[:, ::2],
        "part": normal(70_000, 2).flatten()[3:],
    }


@needs_compiler
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("integers", FORMATS, ids=format_name)
def test_large_tensors_of_any_layout_get_the_same_values_and_gradients(integers, bits):
    for x in tensors().values():
        gradient, clipping = torch.randn_like(x), torch.tensor(1.3)
        expected = operation_by_operation(x, clipping, bits, integers, gradient)
        assert_same(quantized_with_gradients(x, clipping, bits, integers, gradient), expected)


@needs_compiler
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)], ids=str)
def test_the_clipping_gradient_has_its_shape_and_gradients_may_have_another_layout(shape):
    x = tensors()["channels_last"]
    gradient, clipping = torch.randn(1, 48, 1, 1).expand(x.shape), torch.full(shape, 0.9)
    received = quantized_with_gradients(x, clipping, 4, SIGNED, gradient)
    assert received[2].shape == shape
    expected = operation_by_operation(x, torch.tensor(0.9), 4, SIGNED, gradient)
    assert_same((*received[:2], received[2].reshape(())), expected)


@needs_compiler
def test_nothing_is_compiled_again_for_a_new_allocation_shape_or_format():
    def quantize_everything(seed: int, widths: range) -> None:
        for x in tensors(seed).values():
            for bits in widths:
                for integers in (SIGNED, UNSIGNED):
                    quantized_with_gradients(x, torch.rand(()) + 0.1, bits, integers, torch.ones_like(x))

    quantize_everything(0, range(1, 3))
    before = counters["stats"]["unique_graphs"]
    quantize_everything(1, range(1, 9))
    quantized_with_gradients(
        torch.randn(3, 7, 99, 101), torch.tensor(0.3), 6, SIGNED, torch.ones(3, 7, 99, 101)
    )
    assert before > 0
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.parametrize("size", [1_000, pytest.param(100_000, marks=needs_compiler)])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_rectifying_is_a_relu_before(size, bits):
    x = torch.randn(size)
    x[:4] = torch.tensor([0.0, -0.0, 1e-40, float("nan")])
    gradient, clipping = torch.randn(size), torch.tensor(1.1)

    y, a = x.clone().requires_grad_(), clipping.clone().requires_grad_()
    expected, _ = fake_quantize(y.relu(), a, bits, UNSIGNED)
    wanted = torch.autograd.grad(expected, (y, a), gradient)
    values, to_x, to_clipping = quantized_with_gradients(x, clipping, bits, UNSIGNED, gradient, rectify=True)

    assert torch.equal(values[:3], expected[:3]) and values[3].isnan()
    assert torch.equal(values[4:], expected[4:])
    assert torch.equal(to_x[:3], wanted[0][:3]) and torch.equal(to_x[4:], wanted[0][4:])
    assert to_clipping.isnan() == wanted[1].isnan()

    finite = slice(4, None)
    received = quantized_with_gradients(x[finite], clipping, bits, UNSIGNED, gradient[finite], rectify=True)
    again = fake_quantize(y[finite].relu(), a, bits, UNSIGNED)[0]
    (to_a,) = torch.autograd.grad(again, a, gradient[finite])
    torch.testing.assert_close(received[2], to_a, rtol=2e-5, atol=1e-4)


def test_tensors_are_copied_only_where_they_have_to_be():
    dense = {name: x for name, x in tensors().items() if name != "with_gaps"}
    assert all(without_gaps(x) is x for x in dense.values())
    with_gaps = tensors()["with_gaps"]
    assert torch.equal(without_gaps(with_gaps), with_gaps) and without_gaps(with_gaps).is_contiguous()
    x = dense["channels_last"]
    other = x.contiguous()
    assert like(x, x) is x
    assert torch.equal(like(other, x), x) and like(other, x).stride() == x.stride()


@needs_compiler
def test_a_forward_pass_without_gradients_leaves_large_inputs_as_they_are():
    x = tensors()["images"]
    kept = x.clone()
    with torch.inference_mode():
        values, _ = fake_quantize(x, torch.tensor(0.5), 3, SIGNED)
    assert torch.equal(x, kept)
    assert torch.equal(values, quantize_values(x, torch.tensor(0.5) / 3, 3, SIGNED))


@pytest.mark.cuda
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_large_tensors_on_cuda(bits):
    x, gradient = torch.randn(64, 32, 16, 16, device="cuda"), torch.randn(64, 32, 16, 16, device="cuda")
    clipping = torch.tensor(1.7, device="cuda")
    expected = operation_by_operation(x, clipping, bits, SIGNED, gradient)
    assert_same(quantized_with_gradients(x, clipping, bits, SIGNED, gradient), expected)


# --- after a BatchNorm ----------------------------------------------------------------------------


def batchnorm_case(memory_format: torch.memory_format) -> tuple[nn.BatchNorm2d, Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(24)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(16, 24, 15, 16).contiguous(memory_format=memory_format)
    return norm, x.requires_grad_()


@needs_compiler
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("integers", [SIGNED, UNSIGNED], ids=format_name)
def test_gradients_through_a_batchnorm_are_the_same_without_its_output(integers, bits, memory_format):
    norm, x = batchnorm_case(memory_format)
    clipping = torch.tensor(1.3, requires_grad=True)
    parameters = (x, norm.weight, norm.bias, clipping)
    rectify = not integers.signed

    def gradients(follow):
        y = follow(norm(x))
        values, _ = fake_quantize(y, clipping, bits, integers, rectify=rectify)
        upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
        return torch.autograd.grad(values, parameters, upstream)

    # Through a view the quantizer does not see the BatchNorm, and keeps its input.
    for got, wanted in zip(gradients(lambda y: y), gradients(lambda y: y.view_as(y)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_the_output_of_a_batchnorm_is_not_kept():
    norm, x = batchnorm_case(torch.channels_last)
    y = norm(x)
    values, _ = fake_quantize(y, torch.tensor(1.3, requires_grad=True), 4, SIGNED)
    kept = StorageWeakRef(y.untyped_storage())
    assert not kept.expired()
    del y
    assert kept.expired()
    values.sum().backward()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_output_of_a_batchnorm_is_computed_again_to_the_last_bit(memory_format):
    norm, x = batchnorm_case(memory_format)
    y = norm(x)
    affine = batchnorm_output(y)
    if affine is None:
        pytest.skip("this processor rounds a BatchNorm's output twice")
    shape = (-1, 1, 1)
    assert affine.source is x
    assert torch.equal(computed(affine.source, affine.factor.view(shape), affine.offset.view(shape)), y)


def test_other_tensors_have_no_batchnorm_to_be_computed_from():
    norm, x = batchnorm_case(torch.contiguous_format)
    assert batchnorm_output(x) is None
    assert batchnorm_output(norm(x).relu()) is None
    assert batchnorm_output(norm.eval()(x)) is None  # its statistics may change before the backward pass
    norm.train().bias.requires_grad_(False)
    assert batchnorm_output(norm(x)) is None  # its bias is not to be found
    with torch.autograd.graph.save_on_cpu():
        assert batchnorm_output(batchnorm_case(torch.contiguous_format)[0](x)) is None

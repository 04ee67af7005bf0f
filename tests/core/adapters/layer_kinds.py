"""One small model per layer kind that is supported, and what tests need to look inside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int32Bias,
    Uint8ActPerTensorFloat,
)
from brevitas.quant_tensor import QuantTensor
from torch import Tensor, nn

PARAMETER_SCALE = {"scaling_impl_type": "parameter", "scaling_init": 2.0}


class Quantizers:
    """What the layers of a model are quantized with.

    Args:
        bits: With a width, all scales are plain parameters. By default 8 bits, and scales from statistics
            as Brevitas has them.
    """

    def __init__(self, bits: int | None = None) -> None:
        changes = {} if bits is None else {"bit_width": bits, **PARAMETER_SCALE}
        self.weight = Int8WeightPerTensorFloat.let(**changes)
        self.channel_weight = Int8WeightPerChannelFloat.let(**changes)
        self.signed = Int8ActPerTensorFloat.let(**changes)
        self.unsigned = Uint8ActPerTensorFloat.let(**changes)

    def per_channel(self, channels: int, *, signed: bool) -> Any:
        """An activation quantizer with one scale per channel of an image."""
        return (self.signed if signed else self.unsigned).let(
            scaling_per_output_channel=True,
            per_channel_broadcastable_shape=(1, channels, 1, 1),
            scaling_stats_permute_dims=(1, 0, 2, 3),
        )


class Forward(nn.Module):
    """Layers by name and the function that puts them together."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._run = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self, *args, **kwargs)


@dataclass(frozen=True)
class Kind:
    """A layer kind: how to build a model of it, and inputs for it."""

    name: str
    build: Callable[[Quantizers], nn.Module]
    inputs: Callable[[], Tensor]


KINDS: dict[str, Kind] = {}


def kind(inputs: Callable[[], Tensor]) -> Callable[[Callable[[Quantizers], nn.Module]], None]:
    def register(build: Callable[[Quantizers], nn.Module]) -> None:
        KINDS[build.__name__] = Kind(build.__name__, build, inputs)

    return register


def image(channels: int = 3, *size: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, channels, *(size or (7, 7)))


def identity(q: Quantizers) -> nn.Module:
    return qnn.QuantIdentity(q.signed, return_quant_tensor=True)


@kind(image(3, 9))
def conv1d(q):
    return nn.Sequential(identity(q), qnn.QuantConv1d(3, 4, 3, weight_quant=q.weight, bias_quant=Int32Bias))


@kind(image())
def conv2d(q):
    return nn.Sequential(identity(q), qnn.QuantConv2d(3, 4, 3, weight_quant=q.weight, bias_quant=Int32Bias))


@kind(image(4))
def conv2d_grouped_per_channel(q):
    conv = qnn.QuantConv2d(4, 6, 3, groups=2, stride=2, padding=1, weight_quant=q.channel_weight)
    return nn.Sequential(identity(q), conv)


@kind(image(3, 5, 5, 5))
def conv3d(q):
    return nn.Sequential(identity(q), qnn.QuantConv3d(3, 4, 3, weight_quant=q.channel_weight))


@kind(image(3, 9))
def conv_transpose1d(q):
    return nn.Sequential(identity(q), qnn.QuantConvTranspose1d(3, 4, 3, weight_quant=q.channel_weight))


@kind(image())
def conv_transpose2d(q):
    conv = qnn.QuantConvTranspose2d(3, 4, 3, stride=2, weight_quant=q.weight, bias_quant=Int32Bias)
    return nn.Sequential(identity(q), conv)


@kind(image(3, 4, 4, 4))
def conv_transpose3d(q):
    return nn.Sequential(identity(q), qnn.QuantConvTranspose3d(3, 4, 3, weight_quant=q.channel_weight))


@kind(lambda: torch.randn(4, 5, 6))
def linear(q):
    return nn.Sequential(
        identity(q), qnn.QuantLinear(6, 3, True, weight_quant=q.weight, bias_quant=Int32Bias)
    )


@kind(lambda: torch.randn(4, 6))
def linear_per_channel(q):
    return nn.Sequential(identity(q), qnn.QuantLinear(6, 3, True, weight_quant=q.channel_weight))


@kind(lambda: torch.randn(4, 6))
def linear_with_inner_quantizers(q):
    return qnn.QuantLinear(
        6,
        3,
        True,
        weight_quant=q.weight,
        input_quant=q.signed,
        output_quant=q.signed,
        return_quant_tensor=True,
    )


@kind(lambda: torch.randint(0, 20, (4, 7)))
def embedding(q):
    return Forward(
        lambda m, x: m.out(m.embedding(x).mean(1)),
        embedding=qnn.QuantEmbedding(20, 8, weight_quant=q.weight),
        out=qnn.QuantLinear(8, 3, True, weight_quant=q.weight),
    )


@kind(image())
def activations(q):
    return nn.Sequential(
        qnn.QuantIdentity(q.signed),
        qnn.QuantHardTanh(q.signed, min_val=-1.0, max_val=1.0),
        qnn.QuantTanh(q.signed),
        qnn.QuantSigmoid(q.unsigned),
        qnn.QuantReLU(q.unsigned, return_quant_tensor=True),
    )


@kind(image())
def activations_per_channel(q):
    return nn.Sequential(
        qnn.QuantIdentity(q.per_channel(3, signed=True)), qnn.QuantReLU(q.per_channel(3, signed=False))
    )


@kind(lambda: torch.randn(4, 6))
def eltwise_add(q):
    return Forward(
        lambda m, x: m.add(m.left(x), m.right(x)),
        left=qnn.QuantLinear(6, 6, True, weight_quant=q.weight),
        right=qnn.QuantLinear(6, 6, True, weight_quant=q.weight),
        add=qnn.QuantEltwiseAdd(q.signed, q.signed, return_quant_tensor=True),
    )


@kind(lambda: torch.randn(4, 6))
def cat(q):
    return Forward(
        lambda m, x: m.out(m.cat([m.left(x), x])),
        left=qnn.QuantLinear(6, 6, True, weight_quant=q.weight),
        cat=qnn.QuantCat(q.signed, q.signed, return_quant_tensor=True),
        out=qnn.QuantLinear(12, 3, True, weight_quant=q.weight),
    )


@kind(image(4))
def residual(q):
    return Forward(
        lambda m, x: m.relu(m.shared(m.conv(m.shared(x))) + m.shared(x)),
        shared=qnn.QuantIdentity(q.signed, return_quant_tensor=True),
        conv=qnn.QuantConv2d(4, 4, 3, padding=1, weight_quant=q.channel_weight),
        relu=qnn.QuantReLU(q.unsigned, return_quant_tensor=True),
    )


def attention(q: Quantizers, packed: bool) -> nn.Module:
    return Forward(
        lambda m, x: m.attention(x, x, x)[0],
        attention=qnn.QuantMultiheadAttention(
            8,
            2,
            batch_first=True,
            packed_in_proj=packed,
            in_proj_input_quant=q.signed,
            in_proj_weight_quant=q.weight,
            attn_output_weights_quant=q.unsigned,
            q_scaled_quant=q.signed,
            k_transposed_quant=q.signed,
            v_quant=q.signed,
            out_proj_input_quant=q.signed,
            out_proj_weight_quant=q.weight,
        ),
    )


@kind(lambda: torch.randn(2, 5, 8))
def attention_with_one_projection(q):
    return attention(q, packed=True)


@kind(lambda: torch.randn(2, 5, 8))
def attention_with_three_projections(q):
    return attention(q, packed=False)


def lstm_of(q: Quantizers, **settings: Any) -> nn.Module:
    return Forward(
        lambda m, x: m.out(m.lstm(x)[0]),
        lstm=qnn.QuantLSTM(
            6,
            5,
            batch_first=True,
            weight_quant=q.weight,
            io_quant=q.signed,
            gate_acc_quant=q.signed,
            sigmoid_quant=q.unsigned,
            tanh_quant=q.signed,
            cell_state_quant=q.signed,
            **settings,
        ),
        out=qnn.QuantLinear(10 if settings.get("bidirectional") else 5, 3, True, weight_quant=q.weight),
    )


@kind(lambda: torch.randn(2, 4, 6))
def lstm(q):
    return lstm_of(q)


@kind(lambda: torch.randn(2, 4, 6))
def lstm_of_two_layers_with_shared_quantizers(q):
    return lstm_of(
        q, num_layers=2, shared_intra_layer_weight_quant=True, shared_intra_layer_gate_acc_quant=True
    )


@kind(lambda: torch.randn(2, 4, 6))
def lstm_bidirectional_with_coupled_gates(q):
    return lstm_of(q, bidirectional=True, shared_input_hidden_weights=True, coupled_input_forget_gates=True)


@kind(lambda: torch.randn(2, 4, 6))
def rnn(q):
    return Forward(
        lambda m, x: m.out(m.rnn(x)[0]),
        rnn=qnn.QuantRNN(
            6, 5, batch_first=True, weight_quant=q.weight, io_quant=q.signed, gate_acc_quant=q.signed
        ),
        out=qnn.QuantLinear(5, 3, True, weight_quant=q.weight),
    )


# --- looking inside -------------------------------------------------------------------------------


def plain(output: Any) -> Tensor:
    """The values of a model's output."""
    return output.value if isinstance(output, QuantTensor) else output


@torch.no_grad()
def outputs(model: nn.Module, x: Any) -> Tensor:
    """What a model computes in evaluation mode."""
    training = model.training
    model.eval()
    values = plain(model(x))
    model.train(training)
    return values


def tensor_quant(model: nn.Module, name: str) -> Any:
    """The tensor quantizer of the proxy called ``name``."""
    proxy: Any = model.get_submodule(name)
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    return proxy.tensor_quant if fused is None else fused.tensor_quant


def trained(model: nn.Module, x: Any, steps: int = 2) -> nn.Module:
    """The model after a few training passes, which is when Brevitas collects its statistics."""
    model.train()
    for _ in range(steps):
        model(x)
    return model.eval()


def classes_of_ours(model: nn.Module) -> list[str]:
    """Names of the modules, functions and attributes in a model that come from this package."""
    found = []
    for name, module in model.named_modules():
        held = [type(module), *module.__dict__.values()]
        held += [v for v in module.__dict__.values() if isinstance(v, (list, tuple)) for v in v]
        for value in held:
            origin = getattr(value, "__module__", None) or type(value).__module__
            if str(origin).startswith("gfb"):
                found.append(f"{name}: {value}")
    return found

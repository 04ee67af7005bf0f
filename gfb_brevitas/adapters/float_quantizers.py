"""What Brevitas' graph quantization leaves out: embeddings, products of activations, inputs of integers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from brevitas.quant_tensor import QuantTensor, _unpack_quant_tensor
from torch import Tensor, nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Interpreter, Node

_MATRIX_PRODUCTS = (torch.matmul, operator.matmul, torch.bmm, torch.mm, torch.baddbmm, torch.addmm)
_NOT_NEGATIVE = (torch.softmax, F.softmax, torch.sigmoid, F.sigmoid, F.relu, "softmax", "sigmoid")


def pass_integers_on(graph: GraphModule, is_float: Callable[[Node], bool]) -> None:
    """Take the quantizers away that Brevitas puts behind inputs that are no floats, in place."""
    for node in [n for n in graph.graph.nodes if n.op == "placeholder" and not is_float(n)]:
        for reader in list(node.users):
            if reader.op == "call_module" and isinstance(_module(graph, reader), qnn.QuantIdentity):
                reader.replace_all_uses_with(node)
                graph.graph.erase_node(reader)
    graph.graph.lint()
    graph.recompile()


def quantize_embeddings(graph: GraphModule) -> list[str]:
    """Give the tables of embeddings a quantizer of 8 bits, in place; returns what was done."""
    done = []
    for path in dict.fromkeys(str(n.target) for n in graph.graph.nodes if n.op == "call_module"):
        old = graph.get_submodule(path)
        if type(old) is nn.Embedding and old.max_norm is None:
            new = qnn.QuantEmbedding(
                *(old.num_embeddings, old.embedding_dim, old.padding_idx),
                scale_grad_by_freq=old.scale_grad_by_freq,
                sparse=old.sparse,
                weight_quant=Int8WeightPerTensorFloat,
            )
            new.weight = old.weight
            owner, _, name = path.rpartition(".")
            setattr(graph.get_submodule(owner), name, new.train(old.training))
            done.append(f"{path}: its table of {old.num_embeddings} rows has a weight quantizer.")
    return done


def quantize_activation_products(graph: GraphModule) -> None:
    """Give every operand of a product of activations a quantizer of 8 bits, in place."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is F.scaled_dot_product_attention:
            _attention(graph, node)
        elif node.target in _MATRIX_PRODUCTS:
            _quantize_operands(
                graph, node, range(node.target in (torch.baddbmm, torch.addmm), len(node.args))
            )
        elif node.target is torch.einsum and len(node.args) > 2:
            _quantize_operands(graph, node, range(1, len(node.args)))
    graph.graph.lint()
    graph.recompile()


def _attention(graph: GraphModule, node: Node) -> None:
    layer = qnn.QuantScaledDotProductAttention(
        attn_output_weights_quant=Uint8ActPerTensorFloat,
        q_scaled_quant=Int8ActPerTensorFloat,
        k_transposed_quant=Int8ActPerTensorFloat,
        v_quant=Int8ActPerTensorFloat,
    )
    path = _free(graph, node.name)
    graph.add_module(path, layer.eval())
    node.op, node.target = "call_module", path


def _quantize_operands(graph: GraphModule, node: Node, places: range) -> None:
    for place in places:
        operand = node.args[place]
        if isinstance(operand, Node) and not _is_quantized(graph, operand):
            unsigned = _is_not_negative(graph, operand)
            quant = Uint8ActPerTensorFloat if unsigned else Int8ActPerTensorFloat
            path = _free(graph, f"{node.name}_operand_{place}_quant")
            graph.add_module(path, qnn.QuantIdentity(act_quant=quant).eval())
            with graph.graph.inserting_before(node):
                node.update_arg(place, graph.graph.call_module(path, (operand,)))


def _is_quantized(graph: GraphModule, node: Node) -> bool:
    """Whether a quantizer made the values of ``node``, past what moves whole tensors."""
    while node.op == "call_method" and node.target in ("transpose", "permute", "t", "contiguous"):
        node = cast(Node, node.args[0])
    return node.op == "call_module" and hasattr(_module(graph, node), "act_quant")


def _is_not_negative(graph: GraphModule, node: Node) -> bool:
    while node.op == "call_module" and isinstance(_module(graph, node), nn.Dropout):
        node = cast(Node, node.args[0])
    layer = _module(graph, node) if node.op == "call_module" else None
    return node.target in _NOT_NEGATIVE or isinstance(layer, (nn.Softmax, nn.ReLU, nn.Sigmoid))


class Unpacking(Interpreter):
    """Runs a quantized graph and notes which operations cannot read quant tensors.

    Attributes:
        at: The operation that ran last.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.at: Node | None = None
        self._graph = graph
        self._unable: list[Node] = []
        self._packed: set[Node] = set()

    def settle(self, inputs: list[Any]) -> None:
        """Hand on the plain values where an operation cannot read quant tensors, in place.

        Args:
            inputs: Values for the graph's placeholders, in order; it is run on them once.
        """
        with torch.no_grad():
            self.run(*inputs)
        for node in self._unable:
            for source in [n for n in node.all_input_nodes if n in self._packed]:
                with self._graph.graph.inserting_before(node):
                    plain = self._graph.graph.call_function(_unpack_quant_tensor, (source,))
                node.replace_input_with(source, plain)
        self._graph.graph.lint()
        self._graph.recompile()
        self.at = None

    def run_node(self, n: Node) -> Any:
        """Run a node on plain values where it fails on quant tensors, or would take them for tuples."""
        self.at = n
        packed = [source for source in n.all_input_nodes if source in self._packed]
        try:
            if packed and (n.op == "output" or n.target is operator.getitem):
                raise TypeError("a quant tensor is a tuple")
            result = super().run_node(n)
            if packed and _is_of_python(n) and not isinstance(result, (Tensor, QuantTensor)):
                raise TypeError("a quant tensor was taken for a tuple")
        except (AttributeError, TypeError, RuntimeError, NotImplementedError):
            if not packed:
                raise
            kept = {source: self.env[source] for source in packed}
            self.env.update({source: _unpack_quant_tensor(value) for source, value in kept.items()})
            result = super().run_node(n)
            self.env.update(kept)
            self._unable.append(n)
        if isinstance(result, QuantTensor):
            self._packed.add(n)
        return result


def _is_of_python(node: Node) -> bool:
    return getattr(node.target, "__module__", "") == "_operator"


def _module(graph: GraphModule, node: Node) -> nn.Module:
    return graph.get_submodule(str(node.target))


def _free(graph: GraphModule, name: str) -> str:
    while hasattr(graph, name):
        name += "_"
    return name

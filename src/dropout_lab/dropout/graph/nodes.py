"""Nodes of a traced graph: their operation by name, their module, and how a message calls them."""

from __future__ import annotations

from torch import nn
from torch.fx import Node

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink,
    nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip


def op_name(node: Node) -> str:
    """The bare name of the function or method of a node, without the underscore of its in-place form: `relu`, `add`."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return name.strip("_")


def caller(node: Node) -> tuple[str, type | None]:
    """Path and class of the module in whose forward pass a node is; "" and None for the model's own."""
    path, kind = next(reversed(node.meta.get("nn_module_stack", {}).values()), ("", None))
    return path, kind if isinstance(kind, type) else None


def is_size(node: Node) -> bool:
    """Whether a value is about a tensor's shape, or another attribute of it, and not computed from its numbers."""
    return node.op in ("call_function", "call_method") and op_name(node) in ("getattr", "size", "dim")


def describe(node: Node) -> str:
    """A node as a message calls it: `Linear classifier.0`, `flatten()`, `add() in layer1.0`, the parameter `x`."""
    if node.op == "call_module":
        return f"{type(module_of(node)).__name__} {node.target}"
    if node.op == "get_attr":
        return f"the parameter {node.target}"
    path, _ = caller(node)
    return f"{op_name(node)}() in {path}" if path else f"{op_name(node)}()"


def module_of(node: Node) -> nn.Module:
    """The module that a node calls."""
    owner = node.graph.owning_module
    assert owner is not None
    assert isinstance(node.target, str)
    return owner.get_submodule(node.target)

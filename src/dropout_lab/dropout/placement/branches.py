"""Residual branches: where x + f(x) stands in the graph of a model, and after which module f ends.

An addition is residual if one of its operands is a shortcut: a value that the other one is computed from, or one that a
chain of operations with one input each (a projection) makes of such a value. Additions of positions, biases and masks
do not depend on the input twice and are none; nor are sums of gates and of rotations, whose operands are products, sums
of parts of a value, and sums of parallel paths that are equally long. Dropping f(x) as a whole has to leave the
shortcut alone, so between the module after which a layer goes and the addition there may only be operations that keep
zero.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn
from torch.fx import Node
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import Call, is_attached
from dropout_lab.dropout.graph.nodes import ACTIVATIONS, caller, describe, is_size, op_name
from dropout_lab.dropout.placement.other_noise import is_noise


class Branch(NamedTuple):
    """The end of a residual branch.

    Attributes:
        call: the call of the module after which the branch ends, but for operations that keep zero.
        block: path of the module in whose forward pass the addition is: two of them in one are one block.
    """

    call: Call
    block: str


def branches(model: nn.Module, found: Sequence[Call]) -> list[Branch]:
    """The ends of all residual branches of a model, in call order; its own stochastic depth is always one.

    Args:
        model: the bare model.
        found: the calls of its leaf modules. Without a graph only stochastic depth, DropPath and the layers of torch's
            transformers are known.

    Raises:
        ValueError: a residual addition before which no layer can drop the branch as a whole.
    """
    of_node = {call.node: call for call in found if call.node is not None}
    nodes = list(next(iter(of_node)).graph.nodes) if of_node else []
    ours = {node for node in nodes if node.op == "call_module" and is_attached(model, str(node.target))}
    ends: dict[Call, str] = {}
    for addition, operand in _residual(nodes, ours):
        block, _ = caller(addition)
        ends[_end(addition, operand, of_node, ours)] = block
    for call in found:
        owner, _, name = call.path.rpartition(".")
        of_torch = call.node is None and name in _ENDS and isinstance(model.get_submodule(owner), _TRANSFORMERS)
        if of_torch or (drops_branches(call.module) and call not in ends):
            ends[call] = owner
    for call in ends:  # a module that is called elsewhere, too, would drop there as well
        other = next((each.name for each in found if each.module is call.module and each not in ends), None)
        if other is not None and not drops_branches(call.module):
            raise ValueError(f"placement.where=branches: {call.path} ends a branch, and is called elsewhere ({other})")
    return [Branch(call, ends[call]) for call in found if call in ends]


def drops_branches(module: nn.Module) -> bool:
    """Whether a module is, or was before `install`, stochastic depth: torchvision's, timm's DropPath, one named so."""
    kind = type(vars(module).get("replaced", module))
    names = [each.__name__ for each in kind.__mro__]
    return is_noise(kind) and any("StochasticDepth" in name or "DropPath" in name for name in names)


def _residual(nodes: Iterable[Node], ours: Collection[Node]) -> Iterator[tuple[Node, Node]]:
    """Each residual addition with the operand that is its branch."""
    origins: dict[Node, set[Node]] = {}  # of each value that depends on the input's: all that it is computed from
    for node in nodes:
        sources = [source for source in node.all_input_nodes if source in origins and not is_size(source)]
        if node.op == "placeholder":
            origins[node] = {node}
        elif sources and not is_size(node):
            origins[node] = {node}.union(*(origins[source] for source in sources))
        operands = [each for each in node.args[:2] if isinstance(each, Node) and each in origins]
        if op_name(node) in _ADDITIONS and len(set(operands)) == 2:
            one, other = operands
            lengths = [_shortcut(a, origins[b], origins, ours) for a, b in ((one, other), (other, one))]
            if lengths[0] != lengths[1]:
                yield node, other if lengths[0] < lengths[1] else one


def _shortcut(value: Node, of_branch: set[Node], origins: Mapping[Node, set[Node]], ours: Collection[Node]) -> float:
    """How many operations with one input each lead from a value of the branch to this one; infinite if none do."""
    length = 0
    while value not in of_branch:
        sources = [source for source in value.all_input_nodes if source in origins]
        scaled = op_name(value) in _PRODUCTS and len(value.all_input_nodes) > 1  # a rotation of positions, a gate
        if len(sources) != 1 or scaled or op_name(value) in _PARTS:
            return math.inf
        length += value not in ours
        (value,) = sources
    return length


def _end(addition: Node, operand: Node, of_node: Mapping[Node, Call], ours: Collection[Node]) -> Call:
    """The call of the module after which the branch that ends in an operand can be dropped."""
    todo, why = [operand], ""
    while todo:
        node = todo.pop()
        call = of_node.get(node)
        if call is not None and not isinstance(call.module, (nn.MultiheadAttention, nn.RNNBase)):
            if _only_through(node, addition):
                return call
            why = f"{describe(node)} is used elsewhere, too"
            if not isinstance(call.module, _KEEP_ZERO):
                continue
        elif node not in ours and not (node.op in ("call_function", "call_method") and op_name(node) in _ZERO_KEEPING):
            why = f"it comes from {describe(node)}"
            continue
        inputs = [source for source in node.all_input_nodes if not is_size(source)]
        # Of a product the factor that the other one, a gate, is made from comes first.
        todo += inputs[::-1] if op_name(node) in _PRODUCTS else inputs[:1]
    raise ValueError(
        f"placement.where=branches: no layer can drop the branch that {describe(addition)} adds as a whole: {why}; "
        "name modules with placement.pattern instead"
    )


def _only_through(node: Node, addition: Node) -> bool:
    """Whether a value reaches the model's output through one addition alone."""
    todo, seen = [node], {node, addition}
    while todo:
        for user in todo.pop().users:
            if user.op == "output":
                return False
            if user not in seen:
                seen.add(user)
                todo.append(user)
    return True


_TRANSFORMERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_ENDS = ("dropout1", "dropout2", "dropout3")  # of their branches; `dropout` stands inside of one
_ADDITIONS = {"add", "iadd"}
_PRODUCTS = {"mul", "imul"}
_PARTS = {"getitem", "chunk", "split", "tensor_split", "unbind", "narrow"}
_KEEP_ZERO = (
    *(kind for kind in ACTIVATIONS if kind not in (nn.LogSigmoid, nn.Sigmoid, nn.Softplus, nn.Threshold)),
    nn.Identity,
    _DropoutNd,
)
_ZERO_KEEPING = _PRODUCTS | {
    "div", "truediv", "itruediv", "neg", "getitem", "relu", "relu6", "gelu", "silu", "tanh", "hardswish", "leaky_relu",
    "elu", "mish", "dropout", "stochastic_depth", "contiguous", "clone", "to", "float", "half", "bfloat16", "type_as",
    "view", "reshape", "permute", "transpose", "swapaxes", "movedim", "flatten", "unflatten", "squeeze", "unsqueeze",
    "roll", "flip", "expand", "mean", "sum",
}  # fmt: skip

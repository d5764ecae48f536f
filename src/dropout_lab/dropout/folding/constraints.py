"""The equations that the ops of a model set for the scales of its tensors; ``solve.py`` explains and solves them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import nn
from torch.fx import GraphModule, Node

from dropout_lab.dropout.folding import operations
from dropout_lab.dropout.graph.nodes import op_name
from dropout_lab.dropout.layer import Dropout

Value = Node | None  # a tensor of the graph; None stands for the scale 1 itself


class Link(NamedTuple):
    """A demand of ``node``: scale(to) = scale(the value that the link belongs to) * ratio."""

    to: Value
    ratio: Fraction
    node: Node


class Use(NamedTuple):
    """One use, at ``node``, of a parameter or buffer, which has to become scale(over) / scale(under) times itself."""

    name: str
    over: Value
    under: Value
    node: Node
    squared: bool = False  # the same, squared: a variance
    offset: float = 0.0  # and with this number added to it meanwhile: its epsilon


class Equations:
    """The equations for the scales of one traced graph.

    Attributes:
        links: value -> its links, each written down at both ends.
        uses: place in memory of a parameter or buffer -> all its uses.
        factors: call of a dropout layer -> its output in the new model / in the old one.
    """

    def __init__(self, traced: GraphModule, factor: Callable[[Dropout], Fraction], training: bool) -> None:
        self.links: dict[Value, list[Link]] = defaultdict(list)
        self.uses: dict[int, list[Use]] = defaultdict(list)
        self.factors: dict[Node, Fraction] = {}
        self._known: dict[Value, Fraction] = {None: Fraction(1)}  # scales that follow from the ops before alone
        self._traced = traced
        self._training = training
        for node in traced.graph.nodes:
            if node.op == "call_module" and isinstance(layer := self.module(node), Dropout):
                self.factors[node] = factor(layer)
        for node in traced.graph.nodes:
            self._add(node)

    def module(self, node: Node) -> nn.Module:
        """The module that a `call_module` node calls."""
        return self._traced.get_submodule(str(node.target))

    def _add(self, node: Node) -> None:
        if node.op == "placeholder":
            self._pin(node, node)
        elif node.op == "output":
            for value in node.all_input_nodes:
                self._pin(value, node)
        elif node.op == "get_attr":
            self._add_tensor(node)
        elif node.op == "call_module":
            self._add_module(node)
        else:
            self._add_function(node)

    def _link(self, source: Value, to: Node, node: Node, ratio: Fraction = Fraction(1)) -> None:
        self.links[source].append(Link(to, ratio, node))
        self.links[to].append(Link(source, 1 / ratio, node))
        if source in self._known:
            self._known.setdefault(to, self._known[source] * ratio)

    def _pin(self, value: Node, node: Node) -> None:
        """Demand the scale 1 of a value."""
        self._link(None, value, node)

    def _pin_all(self, node: Node) -> None:
        """Demand the scale 1 of all inputs and of the result, which is all that an op allows that hands no scale on."""
        for value in (*node.all_input_nodes, node):
            self._pin(value, node)

    def _use(self, node: Node, path: str, over: Value = None, under: Value = None, eps: float | None = None) -> None:
        path = f"{node.target}.{path}" if node.op == "call_module" else path
        tensor = self._tensor(path)
        if tensor is not None:
            self.uses[place(tensor)].append(Use(path, over, under, node, eps is not None, eps or 0.0))

    def _tensor(self, path: str) -> torch.Tensor | None:
        owner, _, name = path.rpartition(".")
        found = getattr(self._traced.get_submodule(owner), name, None)
        return found if isinstance(found, torch.Tensor) else None

    def _add_tensor(self, node: Node) -> None:
        if not isinstance(self._tensor(str(node.target)), nn.Parameter):
            self._pin(node, node)
        elif any(self._weight(user) is not node for user in operations.readers(node)):
            self._use(node, str(node.target), over=node)

    def _add_module(self, node: Node) -> None:
        module, source = self.module(node), next(iter(node.args), None)
        kind = operations.kind_of(module)
        changed: tuple[str, ...] = ()
        if not isinstance(source, Node):
            self._pin_all(node)
        elif node in self.factors:
            self._link(source, node, node, self.factors[node])
        elif operations.keeps_scale(node, module, self._training):
            self._link(source, node, node)
        elif kind in operations.AFFINE and _owns_weight(module):
            changed = self._add_affine(node, over=node, under=source)
        elif kind in operations.BATCH_NORMS and not self._training and _has_statistics(module):
            changed = self._add_batch_norm(node, source, module)
        elif kind in operations.NORMS | operations.BATCH_NORMS and _owns_weight(module):
            self._pin(source, node)
            changed = self._add_affine(node, over=node, under=None)
        elif kind is nn.MultiheadAttention and _attends_to_itself(module, node):
            self._use(node, "in_proj_weight", under=source)
            self._use(node, "out_proj.weight", over=node)
            self._use(node, "out_proj.bias", over=node)
            changed = ("in_proj_weight", "out_proj.weight", "out_proj.bias")
        else:
            self._pin_all(node)
        for path, _ in (*module.named_parameters(), *module.named_buffers()):
            if path not in changed:
                self._use(node, path)

    def _add_affine(self, node: Node, over: Value, under: Value) -> tuple[str, ...]:
        self._use(node, "weight", over=over, under=under)
        self._use(node, "bias", over=over)
        return "weight", "bias"

    def _add_batch_norm(self, node: Node, source: Node, module: nn.Module) -> tuple[str, ...]:
        self._use(node, "running_mean", over=source)
        if _owns_weight(module):
            return "running_mean", *self._add_affine(node, over=node, under=source)
        self._use(node, "running_var", over=source, under=node, eps=float(module.eps))  # type: ignore[arg-type]
        return "running_mean", "running_var"

    def _add_function(self, node: Node) -> None:
        name = op_name(node)
        source = node.args[0] if node.args else node.kwargs.get("input")
        attribute = node.args[1] if name == "getattr" else None
        if name in ("size", "dim", "numel") or (attribute is not None and attribute not in ("T", "mT")):
            self._pin(node, node)  # numbers about a tensor, not its values
        elif name == "getitem" and self._is_second_output(source, node.args[1]):
            self._pin(node, node)
        elif isinstance(source, Node) and (attribute is not None or operations.keeps_scale(node, None, self._training)):
            self._link(source, node, node)
        elif operations.equates(node):
            for value in node.all_input_nodes:
                self._link(value, node, node)
        elif name in operations.PRODUCTS | operations.QUOTIENTS:
            self._add_product(node, name in operations.QUOTIENTS)
        elif isinstance(source, Node) and name in operations.AFFINE_FUNCTIONS:
            self._add_affine_function(node, source)
        elif isinstance(source, Node) and name in operations.NORM_FUNCTIONS:
            self._add_norm_function(node, source)
        else:
            self._pin_all(node)

    def _add_affine_function(self, node: Node, source: Node) -> None:
        weight, bias = _argument(node, 1, "weight"), _argument(node, 2, "bias")
        own = self._weight(node)
        if own is not None:
            self._use(own, str(own.target), over=node, under=source)
        elif weight in self._known:  # one that is computed from others
            self._link(source, node, node, self._known[weight])
        else:
            self._pin_all(node)
        if bias is not None:
            self._link(bias, node, node)

    def _add_norm_function(self, node: Node, source: Node) -> None:
        self._pin(source, node)
        weight, bias = _argument(node, 2, "weight"), _argument(node, 3, "bias")
        for value in (weight, bias):
            if weight is None or value is not None:
                self._link(value, node, node)

    def _is_second_output(self, source: object, index: object) -> bool:
        """Whether a getitem takes what a module returns beside its result: attention weights, positions of maxima."""
        if not isinstance(source, Node) or source.op != "call_module" or index == 0:
            return False
        return isinstance(self.module(source), nn.MultiheadAttention)

    def _add_product(self, node: Node, quotient: bool) -> None:
        left, right = (arg if isinstance(arg, Node) else None for arg in (*node.args, None)[:2])
        weight = self._weight(node)
        if node.kwargs:  # an operand by name, or another kind of quotient
            self._pin_all(node)
        elif weight is not None:
            other = left if right is not None and operations.shaped(right) is weight else right
            self._use(weight, str(weight.target), over=node, under=other)
        elif left and right in self._known:  # a number, which is known to have scale 1, or an attention map, say
            self._link(left, node, node, 1 / self._known[right] if quotient else self._known[right])
        elif right and left in self._known and not quotient:
            self._link(right, node, node, self._known[left])
        else:
            self._pin_all(node)

    def _weight(self, node: Node) -> Node | None:
        """The parameter of the model that is the weight of an affine function or the factor of a product (layer scale).

        Both work like an affine layer: the scale of the result is that of the other operand times that of the weight.
        """
        if op_name(node) in operations.AFFINE_FUNCTIONS:
            weight = _argument(node, 1, "weight")
            if weight is None or weight.op != "get_attr":
                return None
            return weight if isinstance(self._tensor(str(weight.target)), nn.Parameter) else None
        if op_name(node) not in operations.PRODUCTS or len(node.all_input_nodes) != 2:
            return None
        operands = [operations.shaped(value) for value in node.all_input_nodes]
        tensors = [value for value in operands if value.op == "get_attr"]
        weights = [value for value in tensors if isinstance(self._tensor(str(value.target)), nn.Parameter)]
        return weights[0] if len(weights) == 1 else None


def place(tensor: torch.Tensor) -> int:
    """Where a tensor lies in memory, which two that are tied by ``a.data = b.data`` have in common."""
    return tensor.data_ptr() or id(tensor)


def _argument(node: Node, position: int, name: str) -> Node | None:
    found = node.args[position] if len(node.args) > position else node.kwargs.get(name)
    return found if isinstance(found, Node) else None


def _owns_weight(module: nn.Module) -> bool:
    """Whether a module has a weight, and a bias if any, that no weight norm or pruning computes from something else."""
    own = module._parameters
    return own.get("weight") is not None and ("bias" in own or not hasattr(module, "bias"))


def _has_statistics(module: nn.Module) -> bool:
    """Whether a BatchNorm has statistics of its own, and weights of its own or none."""
    return module.running_var is not None and (_owns_weight(module) or module.weight is None)


def _attends_to_itself(module: nn.Module, node: Node) -> bool:
    own = module._parameters.get("in_proj_weight") is not None and _owns_weight(module.get_submodule("out_proj"))
    return own and len(node.args) >= 3 and len(set(node.args[:3])) == 1

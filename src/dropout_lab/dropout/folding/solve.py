"""Move the constant factors of dropout layers into the weights, exactly: one algorithm for match, fold and convert.

Let every tensor of the traced graph have a *scale*, new value / old value. Ops that let a factor pass
(``operations.py``) hand their input's scale on, `add` and `cat` want one scale for all their inputs, the model's input
and output have scale 1, and so has what goes into or comes out of any other op. A dropout layer changes the scale by
what it does differently in the new model. An affine layer lets its two scales be anything:

    weight *= out / in      bias *= out

Scales are exact fractions, so that two ways to the same tensor agree or they don't; where they don't, no exact answer
exists. Where a scale is free, the first sum that it concerns keeps scale 1, or else the first tensor: what is added to
a residual stream is scaled where it comes from, and in a chain factors move forward if they can.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from dropout_lab.dropout.folding import operations
from dropout_lab.dropout.folding.constraints import Equations, Link, Value, place
from dropout_lab.dropout.folding.copies import remedies
from dropout_lab.dropout.graph.calls import trace
from dropout_lab.dropout.graph.modes import in_mode
from dropout_lab.dropout.graph.nodes import describe, op_name
from dropout_lab.dropout.layer import Dropout


class Change(NamedTuple):
    """The change of a parameter or buffer t: ``(t + offset) * factor - offset``; the offset is 0 but for variances."""

    factor: Fraction
    offset: float = 0.0


def solve(model: nn.Module, factor: Callable[[Dropout], Fraction], training: bool) -> dict[str, Change]:
    """The changes of weights that make up for new factors of the dropout layers; the model stays as it is.

    Args:
        model: in any mode; traced in train mode if ``training``, else in eval mode.
        factor: for a dropout layer, its output in the new model / its output in the old one, for the same input.
        training: whether the answer has to hold while training: BatchNorm then uses the statistics of the batch.

    Returns:
        parameter or buffer name -> change; only those that change.

    Raises:
        ValueError: no exact answer exists (the layer and the op in the way are named), or the model can't be traced.
    """
    with in_mode(model, training=training):
        traced = trace(model, deep=_is_readable)
    _require_visible(model, traced.graph, factor)
    return _Solution(Equations(traced, factor, training), traced.graph).changes()


def apply(model: nn.Module, changes: Mapping[str, Change]) -> None:
    """Change the named parameters and buffers of ``model`` in place."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    changed = {place(tensors[name]): (tensors[name], change) for name, change in changes.items()}  # tied ones once
    with torch.no_grad():
        for tensor, (factor, offset) in changed.values():
            tensor.add_(offset).mul_(float(factor)).sub_(offset)


def outputs(model: nn.Module, example_input: Tensor) -> list[Tensor]:
    """All tensors that ``model`` returns for the example in eval mode, whatever mode it is in."""
    with in_mode(model, training=False), torch.no_grad():
        return list(_tensors(model(example_input)))


def require_same_outputs(before: list[Tensor], after: list[Tensor]) -> None:
    """Refuse outputs on real numbers that differ and should not, for what a traced graph can't show.

    Raises:
        RuntimeError: the outputs differ by much more than rounding.
    """
    for old, new in zip(before, after, strict=True):
        size = old.nan_to_num(0, 0, 0).abs().max().item()
        same = torch.isclose(new, old, rtol=0, atol=size * torch.finfo(old.dtype).eps ** 0.5, equal_nan=True)
        if not same.all():
            difference = (new - old).abs().max().item()
            raise RuntimeError(
                f"moving the factors of the dropout layers changed the output on example_input by {difference:g} of "
                f"{size:g}: something outside the traced graph, a hook on a layer perhaps, depends on them"
            )


def _is_readable(module: nn.Module) -> bool:
    """Whether a module without children that is not known can be looked into."""
    if operations.kind_of(module) is not nn.Module:
        return False
    try:
        trace(module, deep=True)
    except ValueError:
        return False
    return True


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _require_visible(model: nn.Module, graph: Graph, factor: Callable[[Dropout], Fraction]) -> None:
    """Refuse dropout inside a module that the graph shows as one node."""
    called = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    for path, layer in model.named_modules():
        if isinstance(layer, Dropout) and path not in called and factor(layer) != 1:
            owner = next((node for target, node in called.items() if path.startswith(f"{target}.")), None)
            if owner is not None:
                raise ValueError(f"{_layers({path: layer})} is inside {describe(owner)}, which can't be looked into")


class _Solution:
    """The scale of every tensor of a graph, or a refusal."""

    def __init__(self, equations: Equations, graph: Graph) -> None:
        self.equations = equations
        self.scale: dict[Value, Fraction] = {}
        self.parent: dict[Value, tuple[Value, Node]] = {}  # where a scale came from, and which op handed it on
        sums = [node for node in graph.nodes if op_name(node) in ("add", "iadd")]
        for value in (None, *sums, *graph.nodes):  # in call order, so the first tensor of a free group keeps scale 1
            if value not in self.scale:
                self._spread(value)

    def changes(self) -> dict[str, Change]:
        """The changes of parameters and buffers by name."""
        result = {}
        for uses in self.equations.uses.values():
            factors = [(self.scale[use.over] / self.scale[use.under]) ** (2 if use.squared else 1) for use in uses]
            other = next((n for n, factor in enumerate(factors) if factor != factors[0]), None)
            if other is not None:
                ends = [end for use in (uses[0], uses[other]) for end in (use.over, use.under)]
                layers = self._involved(node for end in ends for _, node in self._way(end))
                raise ValueError(
                    f"{layers}: {uses[0].name} is shared by {_name(uses[0].node)}, for which it would have to be "
                    f"multiplied by {float(factors[0]):g}, and {_name(uses[other].node)}, by {float(factors[other]):g}"
                )
            if factors[0] != 1:
                result.update({use.name: Change(factors[0], use.offset) for use in uses})
        return result

    def _spread(self, root: Value) -> None:
        self.scale[root] = Fraction(1)
        queue = deque([root])
        while queue:
            value = queue.popleft()
            for link in self.equations.links[value]:
                scale = self.scale[value] * link.ratio
                if link.to not in self.scale:
                    self.scale[link.to] = scale
                    self.parent[link.to] = value, link.node
                    queue.append(link.to)
                elif self.scale[link.to] != scale:
                    raise ValueError(self._conflict(value, link))

    def _conflict(self, value: Value, link: Link) -> str:
        """The message on a circle of demands that can't all be met: its dropout layers and its ops."""
        one, other = list(self._way(value)), list(self._way(link.to))
        while one and other and one[-1] == other[-1]:
            one.pop(), other.pop()
        circle = [*one, *other, ((value, link.to), link.node)]
        ends = sorted({_name(node) for values, node in circle if None in values})
        joins = sorted({_name(node) for _, node in circle if len(node.all_input_nodes) > 1})
        reason = f"between {' and '.join(ends)}" if ends else f"where {' and '.join(joins)} joins two ways"
        modules = {str(node.target): self.equations.module(node) for _, node in circle if node.op == "call_module"}
        calls = [call for path, module in modules.items() for call in remedies(path, module)]
        more = f"; {' and '.join(calls)} gives a layer a weight of its own" if calls else ""
        return f"{self._involved(node for _, node in circle)}: no weight can take up its factor exactly {reason}{more}"

    def _way(self, value: Value) -> Iterator[tuple[tuple[Value, Value], Node]]:
        """The links over which a value got its scale, from the value back to its root."""
        while value in self.parent:
            source, node = self.parent[value]
            yield (value, source), node
            value = source

    def _involved(self, nodes: Iterator[Node]) -> str:
        factors = self.equations.factors
        found = [node for node in nodes if factors.get(node, 1) != 1]
        found = found or [node for node in factors if factors[node] != 1]
        return _layers({str(node.target): self.equations.module(node) for node in found})


def _layers(layers: dict[str, nn.Module]) -> str:
    names = [f"{layer.name or path!r} (p={layer.p:g})" for path, layer in layers.items()]
    return f"dropout layer{'s' * (len(names) > 1)} {', '.join(names)}"


def _name(node: Node) -> str:
    ends = {"placeholder": "the model's input", "output": "the model's output"}
    return ends.get(node.op) or describe(node)

"""The part of a model before its first active dropout layers, which is computed once, and the rest, which is repeated.

Repeated forward passes on one batch differ only in the rest. Where the batch is the leading dimension throughout, the
rest can also be run for many passes at once, on copies of the HIDDEN activations instead of copies of the input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import trace

_CHUNK_BYTES, _CHUNK_ROWS = 2**26, 2**13


def active_layers(model: nn.Module) -> dict[str, _DropoutNd]:
    """The dropout layers of ``model`` that drop something, by path."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, _DropoutNd) and layer.p > 0}


class Prefix:
    """The part of a model before its first active dropout layers, computed once, and the rest, run for each pass.

    A model that can't be traced is all rest.

    Args:
        model: in the mode in which it will be run, see :func:`dropout_only`.
        cut: False leaves the model whole, all rest, which saves the time for tracing it.
    """

    def __init__(self, model: nn.Module, cut: bool = True) -> None:
        self._rest: nn.Module = model
        self._first: _FirstPart | None = None
        self._per_sample = [True]  # for each input of the rest, whether it comes from the batch
        try:
            traced = trace(model) if cut else None
        except ValueError:
            return
        if traced is None:
            return
        layers = set(active_layers(model).values())
        batch: set[Node] = set()
        random: set[Node] = set()
        for node in traced.graph.nodes:
            if node.op == "placeholder" or batch.intersection(node.all_input_nodes):
                batch.add(node)
            if node.op == "output" or random.intersection(node.all_input_nodes) or _holds(traced, node, layers):
                random.add(node)
        inputs = [node for node in traced.graph.nodes if node not in random and random.intersection(node.users)]
        self._rest = GraphModule(traced, _copy(random, inputs), type(model).__name__)
        self._first = _FirstPart(traced, random, inputs)
        self._per_sample = [node in batch for node in inputs]

    def start(self, x: Tensor) -> list[Any]:
        """What the rest needs from the first part, for the batch x."""
        return self._first.values(x) if self._first else [x]

    def finish(self, values: list[Any], copies: int = 1) -> Tensor:
        """The logits (copies, N, classes) of ``copies`` passes over the batch of :meth:`start`."""
        if copies > 1:
            pairs = zip(values, self._per_sample, strict=True)
            values = [_repeat(value, copies) if per_sample else value for value, per_sample in pairs]
        output = logits(self._rest(*values))
        return output.view(copies, -1, output.shape[1])

    def batches(self, x: Tensor, values: list[Any]) -> bool:
        """Whether copies give what single passes give: tried out with the dropout layers as they are (off).

        Args:
            x: a batch, of which two rows are looked at.
            values: what :meth:`start` returned for it.
        """
        values = values if len(x) <= 2 else self.start(x[:2])
        if not all(_is_tensors(value) for value in values):
            return False  # a size, computed from the batch before dropout and used after it
        try:
            once, twice = self.finish(values), self.finish(values, 2)
        except RuntimeError:  # shapes that do not fit
            return False
        tolerance = torch.finfo(once.dtype).eps ** 0.5
        return twice.shape[1:] == once.shape[1:] and torch.allclose(twice, once, rtol=tolerance, atol=tolerance)


def logits(output: Any) -> Tensor:
    """The output of a model, which has to be logits (N, classes).

    Raises:
        ValueError: the output is something else.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
        found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model must return logits (N, classes), and it returned {found}")
    return output


def chunk(values: list[Any], rows: int) -> int:
    """How many passes may run at once, for ``rows`` samples with these hidden activations."""
    size = sum(value.nbytes for value in values if isinstance(value, Tensor))
    return max(1, min(_CHUNK_ROWS // max(rows, 1), _CHUNK_BYTES // max(size, 1)))


class _FirstPart(Interpreter):
    """The nodes of a graph before dropout, run with what is needed later kept."""

    def __init__(self, traced: GraphModule, random: set[Node], wanted: list[Node]) -> None:
        super().__init__(traced)
        self.random, self.wanted = random, wanted
        self.kept: dict[Node, Any] = {}

    def values(self, x: Tensor) -> list[Any]:
        """The values of the wanted nodes for the batch x."""
        self.run(x)
        values = [self.kept[node] for node in self.wanted]
        self.kept = {}
        return values

    def run_node(self, n: Node) -> Any:
        if n in self.random:
            return None
        value = super().run_node(n)
        if n in self.wanted:
            self.kept[n] = value
        return value


def _holds(traced: GraphModule, node: Node, layers: set[_DropoutNd]) -> bool:
    return node.op == "call_module" and any(m in layers for m in traced.get_submodule(str(node.target)).modules())


def _copy(nodes: set[Node], inputs: list[Node]) -> Graph:
    graph = Graph()
    copies = {node: graph.placeholder(f"given_{node.name}") for node in inputs}
    for node in next(iter(nodes)).graph.nodes:
        if node in nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _repeat(value: Any, copies: int) -> Any:
    if isinstance(value, Tensor):
        return value.repeat(copies, *(1 for _ in value.shape[1:])) if value.ndim else value
    return type(value)(_repeat(part, copies) for part in value)


def _is_tensors(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return not isinstance(value, torch.Size) and all(_is_tensors(part) for part in value)
    return isinstance(value, Tensor)

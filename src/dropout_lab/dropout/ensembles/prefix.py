"""The part of a model before its first active dropout layers, which is computed once, and the rest, which is repeated.

Repeated forward passes on one batch differ only in the rest. Where the batch is the leading dimension throughout, the
rest can also be run for many passes at once, on copies of the HIDDEN activations instead of copies of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import is_leaf, trace
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.dropout.graph.modes import switched
from dropout_lab.dropout.layer import Dropout

_MOST_ROWS, _MOST_BYTES = 2**13, 2**26
# On a CPU activations have to stay in its cache, and a few hundred rows hide what a call of a module costs.
_CPU_ROWS, _CPU_BYTES = 2**10, 2**22

# Modules that treat each row of a matrix (N, features) by itself.
_BY_ROW = {
    nn.Linear, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout, Dropout,
}  # fmt: skip


def active_layers(model: nn.Module) -> dict[str, _DropoutNd]:
    """The dropout layers of ``model`` that drop something, by path."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, _DropoutNd) and layer.p > 0}


class Prefix:
    """The part of a model before its first active dropout layers, computed once, and the rest, run for each pass.

    A model that can't be traced is all rest.

    Args:
        model: in the mode in which it will be run, see :func:`dropout_only`.
        cut: False leaves the model whole, all rest, until :meth:`cut`; a chain of modules is cut all the same.

    Attributes:
        modules: all of the model.
        layers: dropout layers that drop something.
        whole: whether all is rest.
    """

    def __init__(self, model: nn.Module, cut: bool = True) -> None:
        self.modules = list(model.modules())  # for a small model this walk takes a good part of a pass: once
        self.layers = {module for module in self.modules if isinstance(module, _DropoutNd) and module.p > 0}
        self.whole = True
        self._first: Callable[[Tensor], list[Any]] = lambda x: [x]
        self._rest: list[nn.Module] = [model]  # called one after the other
        self._per_sample = [True]  # for each input of the rest, whether it comes from the batch
        steps = _steps(model)
        at = next((at for at, step in enumerate(steps) if not self.layers.isdisjoint(step.modules())), len(steps))
        if at < len(steps) and is_leaf(steps[at]):
            self._first, self._rest, self.whole = lambda x: [_call(steps[:at], x)], steps[at:], False
        elif cut:
            self.cut()

    def cut(self) -> None:
        """Trace the model, which takes longer than a pass of a small one, and cut it; no effect where it can't be."""
        with suppress(ValueError):
            self._cut(trace(self.modules[0]))

    def _cut(self, traced: GraphModule) -> None:
        batch: set[Node] = set()
        random: set[Node] = set()
        for node in traced.graph.nodes:
            if node.op == "placeholder" or batch.intersection(node.all_input_nodes):
                batch.add(node)
            if node.op == "output" or random.intersection(node.all_input_nodes) or _holds(traced, node, self.layers):
                random.add(node)
        inputs = [node for node in traced.graph.nodes if node not in random and random.intersection(node.users)]
        self._first = _FirstPart(traced, random, inputs).values
        self._rest = [GraphModule(traced, _copy(random, inputs))]
        self._per_sample = [node in batch for node in inputs]
        self.whole = False

    def start(self, x: Tensor) -> list[Any]:
        """What the rest needs from the first part, for the batch x."""
        return self._first(x)

    def finish(self, values: list[Any], copies: int = 1) -> Tensor:
        """The logits (copies, N, classes) of ``copies`` passes over the batch of :meth:`start`."""
        pairs = zip(values, self._per_sample, strict=True)
        # One copy, too: the rest may write to what it is given (nn.Dropout(inplace=True)), and each pass needs it.
        given = [_repeat(value, copies) if per_sample else value for value, per_sample in pairs]
        output = logits(_call(self._rest, *given))
        return output.view(copies, len(output) // copies, output.shape[1])

    def largest_chunk(self, x: Tensor, values: list[Any]) -> int:
        """How many passes are best run at once, from shapes, parameters and the kind of device alone.

        Args:
            x: a batch.
            values: what :meth:`start` returned for it.

        Returns:
            1 where copies don't give what single passes give.
        """
        rows, on_cpu = max(len(x), 1), x.device.type == "cpu"
        most = (_CPU_ROWS if on_cpu else _MOST_ROWS) // rows
        given = max((value.nbytes for value in values if isinstance(value, Tensor)), default=0)
        if most < 2 or 2 * given > _MOST_BYTES:
            return 1
        each = _known_bytes(self._rest, values) or self._tried_bytes(x, values)
        size, allowed = max(given, each * rows), _CPU_BYTES if on_cpu else _MOST_BYTES
        if size * most > allowed and on_cpu:
            # Activations as large as the parameters, which each chunk reads, do no more harm than those.
            read = sum(parameter.nbytes for module in self._rest for parameter in module.parameters())
            allowed = min(max(allowed, read), _MOST_BYTES)
        return max(1, min(most, allowed // max(size, 1))) if each else 1

    def _tried_bytes(self, x: Tensor, values: list[Any]) -> int:
        """The bytes of a row's largest activation in the rest, seen in a run of two rows without dropout.

        0 where rows give something else between other rows, as they do where the rest uses the batch's mean.
        """
        values = values if len(x) <= 2 else self.start(x[:2])
        if not all(_is_tensors(value) for value in values):
            return 0  # a size, computed from the batch before dropout and used after it
        largest = 0

        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            nonlocal largest
            largest = max(largest, output.nbytes if isinstance(output, Tensor) else 0)

        pairs = zip(values, self._per_sample, strict=True)
        given = [_between_others(value) if per_sample else value for value, per_sample in pairs]
        try:
            with switched(dict.fromkeys(self.layers, False)):
                alone = self.finish(values)[0]
                with intercepting((module for step in self._rest for module in step.modules()), after=note):
                    output = logits(_call(self._rest, *given))
        except RuntimeError:  # shapes that do not fit
            return 0
        rows, tolerance = len(alone), torch.finfo(alone.dtype).eps ** 0.5
        if len(output) != 3 * rows or not torch.allclose(output[rows:-rows], alone, rtol=tolerance, atol=tolerance):
            return 0
        return max(1, largest // len(output))


def logits(output: Any) -> Tensor:
    """The output of a model, which has to be logits (N, classes).

    Raises:
        ValueError: the output is something else.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
        found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model must return logits (N, classes), and it returned {found}")
    return output


def _steps(module: nn.Module) -> list[nn.Module]:
    """The modules that a plain nn.Sequential calls one after the other, those in it included; of any other, itself."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and _unchanged(module):
        return [step for child in module for step in _steps(child)]
    return [module]


def _unchanged(module: nn.Module) -> bool:
    """Whether a call of a module is a call of its class's ``forward`` and nothing else."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._compiled_call_impl
    return not hooked and "forward" not in vars(module)


def _call(steps: list[nn.Module], *values: Any) -> Any:
    for step in steps:
        values = (step(*values),)
    return values[0]


def _known_bytes(steps: list[nn.Module], values: list[Any]) -> int:
    """The bytes of a row's largest activation in steps that work row by row; 0 where that is not known of each."""
    if not all(type(step) in _BY_ROW and _unchanged(step) for step in steps) or values[0].ndim != 2:
        return 0
    widths = [step.out_features for step in steps if isinstance(step, nn.Linear)]
    return int(values[0].element_size() * max([values[0].shape[1], *widths]))


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
    return type(value)(_repeat(part, copies) for part in value) if _is_tensors(value) else value


def _between_others(value: Any) -> Any:
    """Three copies of rows, the outer two with other numbers where the values are not integers."""
    if isinstance(value, Tensor):
        other = value / 2 if value.is_floating_point() else value
        return torch.cat((other, value, other)) if value.ndim else value
    return type(value)(_between_others(part) for part in value)


def _is_tensors(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return not isinstance(value, torch.Size) and all(_is_tensors(part) for part in value)
    return isinstance(value, Tensor)

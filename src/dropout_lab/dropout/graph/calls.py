"""What a model computes, in order: its graph, and the calls of its leaf modules with the names the lab uses for them.

A *leaf* is a module that is looked at from outside only: one without children, any dropout layer, and torch's
attention and recurrent layers. Sites for dropout, metric names and folding all start from the order of leaf calls.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.fx
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.hooks import BEFORE, OPAQUE, as_before, attached, is_ours, unhooked
from dropout_lab.dropout.graph.layer_names import layer_name
from dropout_lab.dropout.graph.modes import in_mode


@dataclass(frozen=True)
class Call:
    """One call of a leaf module in one forward pass of the model.

    Attributes:
        index: position among all leaf calls of the bare model, from 0.
        name: the lab's name of the call, `03_features_3`, or `04_relu_call2` for the second call of one module.
        path: the module's path in the model, `features.3`.
        number: 1 for the first call of this module in the forward pass, 2 for the second.
        module: the module itself.
        node: its node in the traced graph; None where the order is that of definition.
    """

    index: int
    name: str
    path: str
    number: int
    module: nn.Module
    node: torch.fx.Node | None


def trace(model: nn.Module, *, deep: bool | Callable[[nn.Module], bool] = False) -> torch.fx.GraphModule:
    """The model as a `torch.fx` graph, with leaf modules as single nodes, in the mode (train or eval) it is in.

    The graph module computes what the model computes and shares its parameters and leaf modules. Dropout layers that
    `install` attached are nodes of their own (`relu`, then `relu.dropout`). Forward arguments that have a default keep
    it, except the first. Hooks on containers are traced through; hooks on leaves stay inside them.

    Args:
        model: any module.
        deep: look into modules without children, too, unless they are torch's; a function says into which.

    Raises:
        ValueError: `torch.fx` can't follow the forward pass (control flow that depends on values, `**kwargs`, ...).
    """
    tracer = _Tracer(deep if callable(deep) else lambda _: deep)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a forward pass warns about when it is run on proxies is no news
            graph = tracer.trace(model)
        leaves: dict[str, Any] = {}
        for node in graph.nodes:
            if node.op == "call_module":
                module = model.get_submodule(node.target)
                leaves[node.target] = unhooked(module) if attached(module) else module
            elif node.op == "get_attr":
                leaves[node.target] = _attribute(model, node.target)
        traced = torch.fx.GraphModule(leaves, graph, type(model).__name__)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} can't be traced by torch.fx: {error}") from error
    traced.training = model.training
    return traced


def calls(model: nn.Module) -> list[Call]:
    """The calls of leaf modules in call order, as a forward pass in train mode makes them.

    What the lab has installed does not show: an installed model gives the names of the bare one. Modules inside a torch
    layer that is opaque to tracing (`nn.TransformerEncoderLayer`) follow one another in the order of their definition;
    so do all modules of a model that can't be traced, one call each, whether they are used or not.
    """
    with in_mode(model, training=True), as_before(model):
        try:
            graph = trace(model, deep=_is_opaque).graph
        except ValueError:
            found = [(path, module, None) for path, module in _leaves(model, "")]
        else:
            found = [
                (path, module, node if path == node.target else None)
                for node in graph.nodes
                if node.op == "call_module" and not is_attached(model, node.target)
                for path, module in _leaves(model.get_submodule(node.target), node.target)
            ]
    numbers: Counter[nn.Module] = Counter()
    result = []
    for index, (path, module, node) in enumerate(found):
        numbers[module] += 1
        name = layer_name(index, len(found), path, numbers[module])
        result.append(Call(index, name, path, numbers[module], module, node))
    return result


def depends_on_input(node: torch.fx.Node) -> bool:
    """Whether the value of `node` is computed from the model's input; what is not has no batch dimension.

    An example is the MLP of swin_v2 that makes attention biases out of a table of coordinates.
    """
    todo, seen = [node], {node}
    while todo:
        node = todo.pop()
        if node.op == "placeholder":
            return True
        new = [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        todo += new
    return False


def is_leaf(module: nn.Module) -> bool:
    """Whether the lab looks at a module from outside only: no children of its own, dropout, attention, recurrent."""
    if isinstance(module, (_DropoutNd, nn.MultiheadAttention, nn.RNNBase)):
        return True
    return all(is_ours(module, name) or name == "parametrizations" for name, _ in module.named_children())


def is_attached(model: nn.Module, path: str) -> bool:
    """Whether the module at `path` is a layer that `install` has hung on its parent."""
    host, _, child = path.rpartition(".")
    return is_ours(model.get_submodule(host), child)


class _Tracer(torch.fx.Tracer):
    def __init__(self, looks_into: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.looks_into = looks_into

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if super().is_leaf_module(m, module_qualified_name) or isinstance(m, _DropoutNd):
            return True
        return (is_leaf(m) or _is_opaque(m)) and not self.looks_into(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not (is_leaf(m) or self.is_leaf_module(m, "")):
            return super().call_module(m, forward, args, kwargs)  # runs the hooks of m, so attached layers too
        path = self.path_of_module(m)
        ours = attached(m)
        if BEFORE in ours:
            args = (self.create_proxy("call_module", f"{path}.{BEFORE}", (args[0],), {}), *args[1:])
        output = super().call_module(m, m.forward, args, kwargs)  # also of a leaf that is looked into without its hooks
        for child in ours:
            if child != BEFORE:
                output = self.create_proxy("call_module", f"{path}.{child}", (output,), {})
        return output

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        parameters = inspect.signature(inspect.unwrap(root_fn)).parameters
        for position, arg in enumerate(args[2:], start=2):
            parameter = parameters.get(arg.node.target)
            if parameter is not None and parameter.default is not inspect.Parameter.empty:
                self.graph.erase_node(arg.node)
                args[position] = parameter.default
        if BEFORE in attached(self.root):  # the hook of the root itself: dropout on the model's input
            args[1] = self.create_proxy("call_module", BEFORE, (args[1],), {})
        return fn, args


def _is_opaque(module: nn.Module) -> bool:
    return OPAQUE in vars(module)


def _attribute(model: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Leaf modules at or below `module` in the order of their definition."""
    if is_leaf(module):
        if path:
            yield path, module
        return
    for name, child in module.named_children():
        if not is_ours(module, name):
            yield from _leaves(child, f"{path}.{name}" if path else name)

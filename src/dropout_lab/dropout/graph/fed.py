"""Which affine layers read the output of a dropout layer: those whose weights its noise multiplies."""

from collections.abc import Iterator

from torch import nn
from torch.fx import Node
from torch.nn.modules.conv import _ConvNd

from dropout_lab.dropout.graph.calls import depends_on_input, trace
from dropout_lab.dropout.graph.modes import in_mode
from dropout_lab.dropout.graph.nodes import op_name
from dropout_lab.dropout.layer import Dropout

_SUMS = ("add", "iadd", "radd", "sub", "isub")


def fed_layers(model: nn.Module) -> dict[Dropout, list[nn.Module]]:
    """The Linear and convolutional layers that each dropout layer of ``model`` feeds, in the order of their calls.

    Activations, pools, norms, products and joins may lie between; what is another dropout layer, or the sum of two
    values that depend on the input, as at the end of a residual branch, is looked no further than. One that feeds none
    has an empty list, as has one on attention weights.

    Raises:
        ValueError: `torch.fx` can't follow the forward pass.
    """
    found: dict[Dropout, list[nn.Module]] = {each: [] for each in model.modules() if isinstance(each, Dropout)}
    with in_mode(model, training=True):
        for node in trace(model).graph.nodes:
            if isinstance(layer := _module(node, model), Dropout):
                found[layer] = list(dict.fromkeys([*found[layer], *_affine(node, model)]))
    return found


def _affine(source: Node, model: nn.Module) -> Iterator[nn.Module]:
    """The affine layers that read a value, as it is or changed on its way."""
    todo, seen = [*source.users], {source}
    while todo:
        node = todo.pop(0)
        module = _module(node, model)
        if node in seen or isinstance(module, Dropout):
            continue
        seen.add(node)
        if isinstance(module, (nn.Linear, _ConvNd)):
            yield module
        elif not (op_name(node) in _SUMS and sum(map(depends_on_input, node.all_input_nodes)) > 1):
            todo += node.users


def _module(node: Node, model: nn.Module) -> nn.Module | None:
    """The module that a node calls; not what the graph has instead of one with dropout hung on it."""
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None

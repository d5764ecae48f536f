"""Whether a tensor inside a model holds feature maps, (N, C, *spatial) made by a convolution, whose channels can go.

Decided from the traced graph, without running the model: walk back from the tensor through everything that keeps the
layout until a convolution (maps) or something that destroys or hides the layout (no maps).
"""

from __future__ import annotations

from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.nodes import ACTIVATIONS, describe, is_size, module_of, op_name


def why_not_maps(node: Node) -> str | None:
    """Why the value of `node` holds no (N, C, *spatial) maps that a convolution made, in a few words; None if it does.

    The model's input holds maps if it reaches a convolution unchanged in layout.
    """
    return _back(node, {})


def why_not_maps_after(module: nn.Module) -> str | None:
    """Why the output of `module` is not sure to hold maps where there is no graph; None for a convolution itself."""
    if isinstance(module, _ConvNd):
        return None
    return "the model can't be traced, so what feeds this site is unknown"


def _back(node: Node, known: dict[Node, str | None]) -> str | None:
    if node in known:
        return known[node]
    if node.op == "placeholder":
        known[node] = None if _reaches_convolution(node, set()) else "the model's input does not go to a convolution"
    elif _is_convolution(node):
        known[node] = None
    elif not keeps_layout(node):
        known[node] = f"the tensor comes from {describe(node)}"
    else:
        # One operand with maps is enough: elementwise ops and cat need the same layout of the others.
        reasons = [_back(source, known) for source in _sources(node)]
        known[node] = None if None in reasons else next(iter(reasons), f"{describe(node)} has no tensor input")
    return known[node]


def keeps_layout(node: Node) -> bool:
    """Whether the op of `node` turns (N, C, *spatial) into (N, C', *spatial'), dimension by dimension."""
    if node.op == "call_module":
        names = {kind.__name__ for kind in type(module_of(node)).__mro__}
        return _is_module(node, _KEEPING) or not names.isdisjoint(_KEEPING_NAMES)
    if node.op == "output":
        return False
    name = op_name(node)
    if name == "getitem":
        return _keeps_dimensions(node)
    if name == "mean":
        return bool(node.kwargs.get("keepdim", False) or (len(node.args) > 2 and node.args[2]))
    return node.op in ("call_function", "call_method") and name in _KEEPING_OPS


def _reaches_convolution(node: Node, seen: set[Node]) -> bool:
    for user in node.users:
        if user not in seen:
            seen.add(user)
            if _is_convolution(user) or (keeps_layout(user) and _reaches_convolution(user, seen)):
                return True
    return False


def _is_convolution(node: Node) -> bool:
    return _is_module(node, (_ConvNd,)) or (node.op == "call_function" and op_name(node) in _CONVOLUTIONS)


def _sources(node: Node) -> list[Node]:
    """The inputs of `node` that are tensors of its kind; the condition of a size or an index is not one of them."""
    return [source for source in node.all_input_nodes if not is_size(source)]


def _keeps_dimensions(node: Node) -> bool:
    source, index = node.args
    if isinstance(index, int):
        return isinstance(source, Node) and op_name(source) in _SPLITTING
    index = index if isinstance(index, tuple) else (index,)
    return all(isinstance(part, slice) or part is Ellipsis for part in index)


def _is_module(node: Node, kinds: tuple[type[nn.Module], ...]) -> bool:
    return node.op == "call_module" and isinstance(module_of(node), kinds)


_KEEPING = (
    *ACTIVATIONS, _DropoutNd, _NormBase, nn.GroupNorm, nn.LocalResponseNorm, nn.Identity,
    nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._LPPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.padding._ConstantPadNd, nn.modules.padding._ReflectionPadNd, nn.modules.padding._ReplicationPadNd,
    nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
)  # fmt: skip
# By name, so that torchvision and timm need not be imported. LayerNorm2d normalises (N, C, H, W) over C.
_KEEPING_NAMES = {"StochasticDepth", "DropPath", "DropBlock2d", "DropBlock3d", "LayerNorm2d"}
_CONVOLUTIONS = {f"conv{'_transpose' * transposed}{d}d" for transposed in (0, 1) for d in (1, 2, 3)}
_SPLITTING = {"chunk", "split", "tensor_split"}
_KEEPING_OPS = {
    *_SPLITTING, "cat", "concat", "concatenate",
    "add", "iadd", "radd", "sub", "isub", "mul", "imul", "rmul", "div", "truediv", "itruediv", "neg", "abs", "pow",
    "clamp", "exp", "sqrt", "where", "contiguous", "clone", "detach", "to", "float", "half", "bfloat16", "type_as",
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "threshold",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "batch_norm", "instance_norm", "group_norm", "local_response_norm", "stochastic_depth", "drop_block2d",
    "pad", "interpolate", "upsample", "pixel_shuffle", "channel_shuffle",
    *(f"{adaptive}{kind}_pool{d}d" for adaptive in ("", "adaptive_") for kind in ("avg", "max") for d in (1, 2, 3)),
}  # fmt: skip

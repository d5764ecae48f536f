"""Which operations let a constant factor pass, op(c x) = c op(x) for c > 0, and which layers can absorb one.

Only such operations may stand between a dropout layer and the weight that its factor is moved into. The list is what
was checked numerically. A subclass counts as the class in the list whose calculation it inherits unchanged;
whatever else is not in it lets none pass, or is looked into, down to the functions that it calls.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.fx import Node

from dropout_lab.dropout.graph.nodes import op_name
from dropout_lab.dropout.placement.attention import plain_kind

AFFINE: frozenset[type[nn.Module]] = frozenset({
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
})  # fmt: skip
BATCH_NORMS: frozenset[type[nn.Module]] = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm})
# These divide by a statistic of their own input; the epsilon in it makes them not quite scale-invariant.
NORMS: frozenset[type[nn.Module]] = frozenset({nn.LayerNorm, nn.GroupNorm, nn.RMSNorm})
AFFINE_FUNCTIONS = frozenset({"linear", *(f"conv{way}{d}d" for way in ("", "_transpose") for d in (1, 2, 3))})
NORM_FUNCTIONS = frozenset({"layer_norm", "group_norm", "rms_norm"})
JOINING = frozenset({"cat", "concat", "concatenate", "stack"})
SUMS = frozenset({"add", "iadd", "radd", "sub", "isub", "maximum", "minimum"})
PRODUCTS = frozenset({"mul", "imul", "rmul", "multiply", "matmul", "bmm"})
SHAPES = frozenset({"reshape", "view", "unsqueeze", "squeeze", "flatten", "unflatten"})  # of all that a tensor holds
QUOTIENTS = frozenset({"div", "truediv", "itruediv", "divide"})


def kind_of(module: nn.Module) -> type[nn.Module]:
    """The class in the lists of this file that a module computes like; ``nn.Module`` if that is not sure of any.

    It is the module's own class, or the nearest that it inherits from with everything that a call of it calls.
    """
    kind = plain_kind(type(module))
    base = next((each for each in kind.__mro__ if each in _KNOWN or _full_name(each) in _ELSEWHERE), nn.Module)
    same = all(getattr(kind, name, None) is getattr(base, name, None) for name in CALLED)
    return base if same and not CALLED & vars(module).keys() else nn.Module


def keeps_scale(node: Node, module: nn.Module | None, training: bool) -> bool:
    """Whether the op of `node` hands on the scale of its first argument; `module`: what a `call_module` node calls."""
    if module is None:
        return op_name(node) in _FUNCTIONS and (op_name(node) != "pad" or _pads_with_zero(node))
    kind = kind_of(module)
    if kind in _CONSTANT_PADS:
        return bool(module.value == 0)
    if kind in _ALPHA:
        return not training
    return kind in _MODULES or _full_name(kind) in _ELSEWHERE


def equates(node: Node) -> bool:
    """Whether the op of `node` gives all its operands and its result one scale.

    A sum with a number other than 0 is affine instead.
    """
    name = op_name(node)
    return name in JOINING or (
        name in SUMS and not any(isinstance(arg, (int, float)) and arg != 0 for arg in node.args[:2])
    )


def shaped(value: Node) -> Node:
    """What a value is but for its shape: a parameter that is reshaped to be a factor, say."""
    while value.op in ("call_function", "call_method") and op_name(value) in SHAPES:
        value = value.all_input_nodes[0]
    return value


def readers(value: Node) -> Iterator[Node]:
    """The nodes that use a value in whatever shape."""
    for user in value.users:
        if shaped(user) is user:
            yield user
        else:
            yield from readers(user)


def _pads_with_zero(node: Node) -> bool:
    given = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | node.kwargs
    return bool(given.get("mode", "constant") != "constant") or given.get("value") in (None, 0)


def _full_name(kind: type) -> tuple[str, str]:
    return kind.__module__.partition(".")[0], kind.__name__


# What a call of a module of the lists calls of its class: with one of them replaced, it may compute anything.
CALLED = frozenset({
    "__call__", "_wrapped_call_impl", "_call_impl", "__getattr__", "__getattribute__", "forward", "_conv_forward",
    "_output_padding", "_check_input_dim", "_check_non_zero_input_channels", "merge_masks",
})  # fmt: skip
_ALPHA: frozenset[type[nn.Module]] = frozenset({nn.AlphaDropout, nn.FeatureAlphaDropout})
_CONSTANT_PADS: frozenset[type[nn.Module]] = frozenset({
    nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
})  # fmt: skip
_MODULES: frozenset[type[nn.Module]] = frozenset({
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
    nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
    nn.Flatten, nn.Unflatten, nn.Fold, nn.Unfold, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
})  # fmt: skip
_KNOWN = AFFINE | BATCH_NORMS | NORMS | {nn.MultiheadAttention} | _ALPHA | _CONSTANT_PADS | _MODULES
# By name, so that torchvision and timm need not be imported. Their masks are drawn, not computed from the input.
_ELSEWHERE = {
    ("torchvision", "Permute"), ("torchvision", "StochasticDepth"), ("torchvision", "DropBlock2d"),
    ("torchvision", "DropBlock3d"), ("timm", "DropPath"), ("timm", "DropBlock2d"),
}  # fmt: skip
_FUNCTIONS = {
    "relu", "leaky_relu", "prelu", "rrelu", "neg", "abs", "absolute", "positive",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "stochastic_depth", "drop_block2d",
    *(f"{kind}_pool{d}d" for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg") for d in (1, 2, 3)),
    "mean", "sum", "amax", "amin", "cumsum", "interpolate", "upsample", "pad", "fold", "unfold",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes", "movedim",
    "t", "contiguous", "clone", "detach", "to", "type_as", "float", "double", "half", "bfloat16",
    "expand", "expand_as", "repeat", "tile", "repeat_interleave", "roll", "flip", "narrow", "select", "index_select",
    "gather", "getitem", "chunk", "split", "tensor_split", "unbind",
}  # fmt: skip

"""Which operations let a constant factor pass, op(c x) = c op(x) for c > 0, and which layers can absorb one.

Only such operations may stand between a dropout layer and the weight that its factor is moved into. The list is what
was checked numerically, by exact type or name: whatever is not in it lets none pass.
"""

from __future__ import annotations

from torch import nn
from torch.fx import Node

from dropout_lab.dropout.graph.nodes import op_name

AFFINE: frozenset[type[nn.Module]] = frozenset({
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
})  # fmt: skip
BATCH_NORMS: frozenset[type[nn.Module]] = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm})
# These divide by a statistic of their own input; the epsilon in it makes them not quite scale-invariant.
NORMS: frozenset[type[nn.Module]] = frozenset({nn.LayerNorm, nn.GroupNorm, nn.RMSNorm})
JOINING = frozenset({"cat", "concat", "concatenate", "stack"})
SUMS = frozenset({"add", "iadd", "radd", "sub", "isub", "maximum", "minimum"})
PRODUCTS = frozenset({"mul", "imul", "rmul", "multiply"})
QUOTIENTS = frozenset({"div", "truediv", "itruediv", "divide"})


def keeps_scale(node: Node, module: nn.Module | None, training: bool) -> bool:
    """Whether the op of `node` hands on the scale of its first argument; `module`: what a `call_module` node calls."""
    if module is None:
        return op_name(node) in _FUNCTIONS and (op_name(node) != "pad" or _pads_with_zero(node))
    if isinstance(module, nn.modules.padding._ConstantPadNd):
        return bool(module.value == 0)
    if type(module) in _ALPHA:
        return not training
    return type(module) in _MODULES or _full_name(module) in _ELSEWHERE


def equates(node: Node) -> bool:
    """Whether the op of `node` gives all its operands and its result one scale.

    A sum with a number other than 0 is affine instead.
    """
    name = op_name(node)
    return name in JOINING or (
        name in SUMS and not any(isinstance(arg, (int, float)) and arg != 0 for arg in node.args[:2])
    )


def _pads_with_zero(node: Node) -> bool:
    given = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | node.kwargs
    return bool(given.get("mode", "constant") != "constant") or given.get("value") in (None, 0)


def _full_name(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__.partition(".")[0], type(module).__name__


_ALPHA = (nn.AlphaDropout, nn.FeatureAlphaDropout)
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

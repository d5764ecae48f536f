"""Attention weights as a place for dropout: the layer gets them as (N, heads, L, S), so that rows stay samples.

Reached are the weights of

    nn.MultiheadAttention                    also inside nn.TransformerEncoderLayer and nn.TransformerDecoderLayer
    torchvision's attention over windows     of Swin v1 and v2, and MaxViT: (N, windows, heads, L, L)
    a dropout layer behind a softmax         replaced
    one called `attn_drop`, as in timm       replaced, see `attn_drop.py`

The class of a module of the first two kinds is swapped for a subclass that calls the layer, so code, parameters and
`state_dict` keys stay its own; what it would drop by itself is off. At p = 0 its own forward pass runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from dropout_lab.dropout.graph.calls import Call
from dropout_lab.dropout.graph.hooks import INSIDE, OPAQUE, override
from dropout_lab.dropout.graph.layer_names import layer_name
from dropout_lab.dropout.graph.nodes import module_of, op_name
from dropout_lab.dropout.placement.attn_drop import hidden_calls, is_attn_drop

# By name, so that torchvision need not be imported. All drop what their one softmax gives.
_WINDOWED = "ShiftedWindowAttention"
_WITH_SOFTMAX = {_WINDOWED, "RelativePositionalMultiHeadAttention"}


def attention_calls(model: nn.Module, found: list[Call]) -> list[Call]:
    """The sites of attention weights: modules that get a layer inside, and dropout layers to be replaced.

    Args:
        model: any.
        found: its `calls`.
    """
    inside = [
        Call(index, layer_name(index, len(found), path), path, 1, module, None)
        for path, module in model.named_modules()
        if _reached(module) and (index := _first_call(path, found)) is not None
    ]
    drops = [call for call in found if is_attn_drop(call.path, call.module) or _drops_weights(call)]
    return [*inside, *drops, *hidden_calls(model, found)]


def _drops_weights(call: Call) -> bool:
    """Whether a call is of a dropout layer that gets what a softmax gives, under whatever name."""
    return (
        isinstance(call.module, _DropoutNd)
        and call.node is not None
        and any(_is_softmax(source) for source in call.node.all_input_nodes)
    )


def _is_softmax(node: Node) -> bool:
    if node.op == "call_module":
        return isinstance(module_of(node), nn.Softmax)
    return op_name(node) == "softmax"


def put_inside(model: nn.Module, host: nn.Module, layer: nn.Module) -> None:
    """Have a module drop its attention weights with `layer`, which becomes a child of it.

    Args:
        model: that the module is in.
        host: the module, one of `attention_calls`.
        layer: a dropout layer.
    """
    host.add_module(INSIDE, layer)
    kind: Any = type(host)
    host.__class__ = _attending(kind)
    vars(host)[OPAQUE] = True
    rate = "dropout" if isinstance(host, nn.MultiheadAttention) else "attention_dropout"
    if hasattr(host, rate):
        override(host, rate, 0.0)
    for parent in model.modules():
        if isinstance(parent, nn.TransformerEncoder) and any(module is host for module in parent.modules()):
            override(parent, "use_nested_tensor", False)  # which only the eval kernel of its layers takes


def take_out(host: nn.Module) -> None:
    """Take out what `put_inside` has put into a module; nothing happens on a bare one.

    What it would drop by itself stays off until it is restored.
    """
    if isinstance(host, _Attending):
        delattr(host, INSIDE)
        delattr(host, OPAQUE)
        host.__class__ = plain_kind(type(host))  # type: ignore[assignment]


def plain_kind(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a module without `put_inside`.

    Args:
        kind: the class that it has.
    """
    return kind.__bases__[-1] if issubclass(kind, _Attending) else kind


class _Attending(nn.Module):
    """Attention whose one softmax gives the weights."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        layer: Any = self._modules[INSIDE]
        if not layer.p:
            return super().forward(*args, **kwargs)
        x = args[0] if args else next(iter(kwargs.values()))
        with _OnWeights(layer, x.shape[0] if _named(type(self), {_WINDOWED}) else None):
            return super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)  # copyreg's maker, the class for it, and the state
        return (_new, (plain_kind(type(self)),), *reduced[2:])  # pickle finds no class by name that was made here


class _MultiheadAttending(_Attending):
    """`nn.MultiheadAttention` in the open."""

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Not while weights are dropped: `nn.TransformerEncoderLayer` then keeps off its eval kernel, which would."""
        same: bool = self.__dict__["_qkv_same_embed_dim"]
        layer: Any = self._modules[INSIDE]
        return same and not layer.p

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        host: Any = self
        layer: Any = self._modules[INSIDE]
        if not layer.p or (is_causal and attn_mask is None):  # torch refuses the latter
            given = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            plain: tuple[Tensor, Tensor | None] = super().forward(query, key, value, *given)
            return plain
        batched = query.ndim == 3
        if batched and not host.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        elif not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        q, k, v = _projected(host, query, key, value)
        bias = _bias(host.num_heads, attn_mask, key_padding_mask, q.dtype, k.shape[2])
        scores = q @ k.transpose(-2, -1) * host.head_dim**-0.5
        weights = layer(_softmax(scores, bias, safe=not need_weights))
        output = host.out_proj((weights @ v).transpose(1, 2).flatten(2))
        if not batched:
            output, weights = output.squeeze(0), weights.squeeze(0)
        elif not host.batch_first:
            output = output.transpose(0, 1)
        return output, (weights.mean(-3) if average_attn_weights else weights) if need_weights else None


class _OnWeights(TorchFunctionMode):
    """The mode in which a layer drops what softmax gives."""

    def __init__(self, layer: nn.Module, rows: int | None) -> None:
        super().__init__()
        self.layer, self.rows = layer, rows  # the samples whose windows are folded into the leading dimension

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") != "softmax":
            return output
        if self.rows is None:
            return self.layer(output)
        return self.layer(torch.unflatten(output, 0, (self.rows, -1))).flatten(0, 1)


@cache
def _attending(kind: Any) -> type[nn.Module]:
    base = _MultiheadAttending if issubclass(kind, nn.MultiheadAttention) else _Attending
    return type(kind.__name__, (base, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _new(kind: Any) -> nn.Module:
    swapped = _attending(kind)
    return swapped.__new__(swapped)


def _projected(host: Any, *inputs: Tensor) -> Iterator[Tensor]:
    """Queries, keys and values, (N, heads, length, head_dim)."""
    packed, biases = host.in_proj_weight, host.in_proj_bias
    weights = (host.q_proj_weight, host.k_proj_weight, host.v_proj_weight) if packed is None else packed.chunk(3)
    extra = (None, host.bias_k, host.bias_v)
    for number, x in enumerate(inputs):
        projected = F.linear(x, weights[number], None if biases is None else biases.chunk(3)[number])
        more = extra[number]
        if more is not None:
            projected = torch.cat((projected, more.expand(len(projected), 1, -1)), dim=1)
        if number and host.add_zero_attn:
            projected = F.pad(projected, (0, 0, 0, 1))
        yield torch.unflatten(projected, -1, (host.num_heads, -1)).transpose(1, 2)


def _bias(heads: int, attn: Tensor | None, padding: Tensor | None, dtype: torch.dtype, keys: int) -> Tensor | None:
    """What both masks add to the scores (N, heads, L, keys); the keys that a module adds itself are at the end."""
    if attn is not None and attn.ndim == 3:
        attn = attn.view(-1, heads, *attn.shape[1:])
    if padding is not None:
        padding = padding.view(-1, 1, 1, padding.shape[-1])
    added = [
        mask.to(dtype) if mask.is_floating_point() else mask.new_zeros((), dtype=dtype).masked_fill(mask, -torch.inf)
        for mask in (attn, padding)
        if mask is not None
    ]
    return F.pad(sum(added[1:], added[0]), (0, keys - added[0].shape[-1])) if added else None


def _softmax(scores: Tensor, bias: Tensor | None, safe: bool) -> Tensor:
    """Attention weights; those of a query that no key may answer are 0 if `safe`, as in torch's kernels, else NaN."""
    if bias is None:
        return scores.softmax(-1)
    if not safe:
        return (scores + bias).softmax(-1)
    alone = bias.isneginf().all(-1, keepdim=True)
    return (scores + bias.masked_fill(alone, 0)).softmax(-1).masked_fill(alone, 0)


def _reached(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return plain_kind(type(module)).forward is nn.MultiheadAttention.forward
    return _named(type(module), _WITH_SOFTMAX)


def _named(kind: type, names: set[str]) -> bool:
    return any(each.__name__ in names for each in kind.__mro__)


def _first_call(path: str, found: list[Call]) -> int | None:
    """The index of the first call in a module or, if it makes none, after it began; None where it is never called."""
    inside = [call.index for call in found if f"{call.path}.".startswith(f"{path}.")]
    if inside:
        return inside[0]
    indices = {call.node: call.index for call in found if call.node}
    begun = False
    for node in next(iter(indices)).graph.nodes if indices else ():
        begun = begun or any(where == path for where, _ in node.meta.get("nn_module_stack", {}).values())
        if begun and node in indices:
            return indices[node]
    return len(found) if begun else None

"""Dropout layers called `attn_drop`, which drop the attention weights of nearly all networks of timm.

A fused kernel of the attention around such a layer only reads its p, so it is off while one of the lab's stands there.
Attention over windows folds them into the rows; the layer gets (N, windows, ...), so that rows stay samples.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import Call
from dropout_lab.dropout.graph.hooks import OPAQUE, before, override, unregister
from dropout_lab.dropout.graph.layer_names import layer_name

ATTN_DROP = "attn_drop"


def is_attn_drop(path: str, module: nn.Module) -> bool:
    """Whether the module at a path is a dropout layer of attention weights."""
    return isinstance(module, _DropoutNd) and path.split(".")[-1] == ATTN_DROP


def hidden_calls(model: nn.Module, found: list[Call]) -> list[Call]:
    """The dropout layers of attention weights that are no calls, as a fused kernel only reads their p.

    Each has the index of the call after it.

    Args:
        model: any.
        found: its `calls`.
    """
    paths = {call.path for call in found}
    hidden = []
    for path, host in model.named_modules():
        drop = f"{path}.{ATTN_DROP}".lstrip(".")
        if drop in paths or not before(host, "fused_attn") or not isinstance(host._modules.get(ATTN_DROP), _DropoutNd):
            continue
        order = list(host._modules)
        later = order[order.index(ATTN_DROP) + 1 :]
        after = [call for call in found if call.path.startswith(tuple(f"{path}.{name}".lstrip(".") for name in later))]
        if after:
            index = after[0].index
            name = layer_name(index, len(found), drop)
            hidden.append(Call(index, name, drop, 1, host.get_submodule(ATTN_DROP), None))
    return hidden


def show_rows(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Have timm's attention call the layer that replaces one of its dropout layers, with samples as rows.

    Args:
        model: the model.
        path: of the layer; nothing happens outside of attention.
        layer: which stands there.
    """
    *host_path, child = path.split(".")
    host = model.get_submodule(".".join(host_path))
    if ATTN_DROP not in host._modules:
        return
    if child == ATTN_DROP and hasattr(host, "fused_attn"):
        override(host, "fused_attn", False)
    block = model.get_submodule(".".join(host_path[:-1]))
    if re.search("Window|Partition", f"{type(host).__name__} {type(block).__name__}") or before(block, "window_size"):
        vars(layer).update(rows=0, unfolded=False)
        layer.register_forward_pre_hook(_unfold)
        layer.register_forward_hook(_fold)
        if _count_rows not in block._forward_pre_hooks.values():
            block.register_forward_pre_hook(_count_rows)
            vars(block)[OPAQUE] = True


def forget_rows(block: nn.Module) -> None:
    """Take off the hook that `show_rows` has hung on a block; nothing happens on a bare one."""
    if _count_rows in block._forward_pre_hooks.values():
        unregister(block._forward_pre_hooks, _count_rows)
        delattr(block, OPAQUE)


def _count_rows(block: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        for host in block.children():
            for layer in host.children():
                if "rows" in vars(layer):
                    vars(layer)["rows"] = args[0].shape[0]


def _unfold(layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    x, rows = args[0], layer.rows
    layer.unfolded = rows > 0 and x.shape[0] > rows and x.shape[0] % rows == 0
    return (x.unflatten(0, (rows, -1)),) if layer.unfolded else None


def _fold(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    return output.flatten(0, 1) if layer.unfolded else None

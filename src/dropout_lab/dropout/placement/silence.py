"""Silence: functions with dropout in them, called in the forward pass of a module, as if their p were 0.

The code of the module stays its own. Hooks around its forward pass open a mode in which torch's functions ask here
first; they are plain functions, so that `copy.deepcopy`, pickle, `torch.fx` and `torch.compile` work as without.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

IDENTITIES = {  # at p = 0
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
}  # fmt: skip
ATTENTION = "scaled_dot_product_attention"
_ARGUMENTS: dict[str, dict[str, Any]] = {  # by which the other functions are silent
    "multi_head_attention_forward": {"dropout_p": 0.0},
    "rrelu": {"training": False},
}
SILENCED = {*IDENTITIES, ATTENTION, *_ARGUMENTS, "shifted_window_attention"}  # and torchvision's, which calls those


def silence(host: nn.Module) -> None:
    """Have no function drop anything in the forward pass of a module and of its children; once is enough."""
    if not is_silent(host):
        host.register_forward_pre_hook(_enter, prepend=True)
        host.register_forward_hook(_leave, always_call=True)


def is_silent(host: nn.Module) -> bool:
    """Whether a module was silenced by itself."""
    return _enter in host._forward_pre_hooks.values()


class _Silent(TorchFunctionMode):
    """The mode in which functions with dropout have p = 0."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        if name in IDENTITIES:
            return args[0] if args else kwargs["input"]
        if name == ATTENTION:  # of query, key, value, attn_mask, dropout_p
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        elif name in _ARGUMENTS:
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.arguments.update(_ARGUMENTS[name])
            args, kwargs = bound.args, bound.kwargs
        return func(*args, **kwargs)


def _enter(host: nn.Module, args: tuple[Any, ...]) -> None:
    mode = _Silent()
    vars(host).setdefault("silent", []).append(mode)  # a module may call itself
    mode.__enter__()  # type: ignore[no-untyped-call]


def _leave(host: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    vars(host)["silent"].pop().__exit__(None, None, None)

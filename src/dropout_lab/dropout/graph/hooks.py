"""Hooks on the modules of a model: dropout layers hung on any of them, and outputs that are seen or replaced.

An attached layer changes neither the code of the model nor its `state_dict` keys: it becomes a child of its host (so
`train()`, `apply` and `named_modules` reach it) and is called from a forward hook. The hooks are plain functions that
look the child up, so `copy.deepcopy`, pickle and `torch.compile` work. Attributes of a module that stand in the way
of a layer are overridden for as long as it is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

AFTER, BEFORE = "dropout", "dropout_before"
INSIDE = "dropout_inside"  # a child that the module calls itself (`placement/attention.py`)
OPAQUE = "opaque"  # an attribute of modules whose forward pass shows layers in it what a traced graph can't show


def attach(host: nn.Module, layer: nn.Module, child: str) -> None:
    """Make `layer` the child `dropout` (applied to what `host` returns) or `dropout_before` (to its first argument)."""
    host.add_module(child, layer)
    # Registered for good and not by `intercepting`: it is part of the model until `detach`.
    # prepend: whatever else watches the host sees dropout as part of it, registered earlier or later.
    if child == AFTER:
        host.register_forward_hook(_drop_after, prepend=True)
    else:
        host.register_forward_pre_hook(_drop_before, prepend=True)


def require_free(host: nn.Module, child: str) -> None:
    """Refuse a host where no layer can be attached under this name; one attached before is no hindrance.

    Raises:
        ValueError: `host` has an attribute of that name itself, as `nn.MultiheadAttention` has.
    """
    if hasattr(host, child) and child not in attached(host):
        raise ValueError(
            f"{type(host).__name__} has an attribute {child!r} of its own, so no dropout layer can be attached to it; "
            "choose another site"
        )


def attached(host: nn.Module) -> dict[str, nn.Module]:
    """The layers that `attach` has hung on `host`: child name -> layer, `dropout_before` first; empty on a bare one."""
    names = [BEFORE] * (_drop_before in host._forward_pre_hooks.values())
    names += [AFTER] * (_drop_after in host._forward_hooks.values())
    return {name: host.get_submodule(name) for name in names}


def detach(host: nn.Module) -> None:
    """Take off every layer that `attach` has hung on `host`, with its hook; nothing happens on a bare one."""
    for name in attached(host):
        delattr(host, name)
    unregister(host._forward_hooks, _drop_after)
    unregister(host._forward_pre_hooks, _drop_before)


def is_ours(host: nn.Module, child: str) -> bool:
    """Whether the child of this name is a layer that the lab has hung on `host`."""
    return child == INSIDE or child in attached(host)


def override(host: nn.Module, name: str, value: Any) -> None:
    """Give an attribute of `host` a value until `restore`, which goes back behind several of them at once."""
    vars(host).setdefault(_OVERRIDDEN, {}).setdefault(name, getattr(host, name, None))
    setattr(host, name, value)


def before(host: nn.Module, name: str) -> Any:
    """The value that an attribute of `host` had before it was overridden; None if it has none."""
    return vars(host).get(_OVERRIDDEN, {}).get(name, getattr(host, name, None))


def restore(host: nn.Module) -> None:
    """Give the overridden attributes of `host` their own values; those that it did not have, go."""
    for name, value in vars(host).pop(_OVERRIDDEN, {}).items():
        setattr(host, name, value)
        if value is None:
            delattr(host, name)


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """The attributes of the modules of `model` within the context as they were before they were overridden."""
    values = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for name in vars(module).get(_OVERRIDDEN, ())
    ]
    try:
        for module, name, _ in values:
            setattr(module, name, before(module, name))
        yield
    finally:
        for module, name, value in values:
            setattr(module, name, value)


def unhooked(host: nn.Module) -> nn.Module:
    """`host` as a module of its own that shares its tensors and runs without the attached layers."""
    bare = copy.copy(host)
    bare._modules = dict(host._modules)
    bare._forward_hooks = host._forward_hooks.copy()
    bare._forward_pre_hooks = host._forward_pre_hooks.copy()
    detach(bare)
    return bare


@contextmanager
def intercepting(
    modules: Iterable[nn.Module],
    *,
    before: Callable[[nn.Module, tuple[Any, ...]], Any] | None = None,
    after: Callable[[nn.Module, tuple[Any, ...], Any], Any] | None = None,
) -> Iterator[None]:
    """Call `before` ahead of the forward pass of each of these modules, and `after` behind it, within the context.

    Args:
        modules: those to look into.
        before: takes the module and its arguments; what it returns, unless None, takes the place of the arguments.
        after: takes the module, its arguments and its output; what it returns, unless None, is the output.
    """
    with ExitStack() as stack:
        for module in modules:
            if before is not None:
                stack.enter_context(module.register_forward_pre_hook(before))
            if after is not None:
                stack.enter_context(module.register_forward_hook(after))
        yield


_OVERRIDDEN = "overridden"


def unregister(hooks: dict[int, Callable[..., Any]], ours: Callable[..., Any]) -> None:
    """Take one function out of the hooks of a module."""
    for key in [key for key, hook in hooks.items() if hook is ours]:
        del hooks[key]


def _drop_after(host: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"dropout after {type(host).__name__} needs one tensor, and the module returned {type(output).__name__}; "
            "choose another site"
        )
    dropped: Tensor = getattr(host, AFTER)(output)
    return dropped


def _drop_before(host: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not args:
        raise TypeError(
            f"dropout before {type(host).__name__} needs its input as a positional argument: "
            "call module(x), not module(input=x)"
        )
    return (getattr(host, BEFORE)(args[0]), *args[1:])

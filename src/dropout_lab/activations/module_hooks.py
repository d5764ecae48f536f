"""Hooks of one module that a meter watches: what each call takes in and puts out goes to rows of the meter.

They stay registered as long as the meter is attached, which no context of `dropout.graph.hooks` spans.
"""

from typing import Any

import torch
from torch import Tensor, nn


class ModuleHooks:
    """The hooks of one module, and which row each call's input and output belong to.

    Args:
        meter: has ``taps`` and ``active``, and ``observe``s; None: the copy of a module that nothing watches.
        module: whose calls they are.
    """

    def __init__(self, meter: Any, module: nn.Module | None) -> None:
        self.meter: Any = meter or _Unwatched
        self.module = module
        mine = [(row, tap) for row, tap in enumerate(meter.taps if meter else ()) if tap.module is module]
        self.calls = max((tap.call for _, tap in mine), default=0) + 1
        self.inputs = {tap.call: row for row, tap in mine if tap.where == "input"}
        self.outputs = {tap.call: row for row, tap in mine if tap.where == "output"}
        self.call = 0
        self.source: Tensor | None = None

    def register(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Register the hooks with the module, until their handles are removed."""
        # Not for the length of a `with intercepting(...)`: a compiled model knows only hooks that were there before its
        # first call, and Lightning begins and ends a training in calls of their own.
        assert self.module is not None
        handles = [self.module.register_forward_hook(self.after)]
        if self.inputs:  # not in the forward hook: an in-place op has changed its input by then
            handles.append(self.module.register_forward_pre_hook(self.before, with_kwargs=True))
        return handles

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Observe the input of a call."""
        if self.meter.active and not recomputing() and self.call in self.inputs:
            self.source = self.meter.observe(self.inputs[self.call], (args, kwargs))

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Observe the output of a call."""
        if self.meter.active and not recomputing():
            if self.call in self.outputs:
                self.meter.observe(self.outputs[self.call], output, self.source)
            # Counting modulo: a second forward pass in one step adds to the rows of the first.
            self.call, self.source = (self.call + 1) % self.calls, None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of a watched model (an average, a fold, torch.save) is not watched and carries no meter along.
        return ModuleHooks, (None, None)


class _Unwatched:
    """The meter of a module that nothing watches."""

    active = False


def recomputing() -> bool:
    """Whether the forward pass that runs is activation checkpointing's second one, inside a backward pass.

    The id of the running backward pass is private to torch, hence this one place with its test. A compiled graph
    traces the recomputation and calls no hook for it.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1

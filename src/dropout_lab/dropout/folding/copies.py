"""Copies of models, and what stands in their way: attributes that can't be copied, weights computed from others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune

from dropout_lab.dropout.folding.constraints import place

Model = TypeVar("Model", bound=nn.Module)


def copied(model: Model) -> Model:
    """A deep copy of a model in which the same parameters are tied, by ``a.data = b.data``, too.

    Raises:
        ValueError: something in the model can't be copied (the module and its attribute are named), or a lazy layer
            has no weights yet.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False))
    lazy = next((name for name, tensor in (*tensors.items(), *model.named_buffers()) if is_lazy(tensor)), None)
    if lazy is not None:
        raise ValueError(f"{lazy} has no values before the model has seen a batch; call the model once first")
    try:
        result = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(_hindrance(model, error)) from error
    firsts: dict[int, Tensor] = {}
    for name, twin in result.named_parameters(remove_duplicate=False):
        first = firsts.setdefault(place(tensors[name]), twin)
        if first is not twin:
            twin.data = torch.as_strided(first.data, twin.shape, twin.stride())
    return result


def remedies(path: str, module: nn.Module) -> Iterator[str]:
    """The calls that give a module its own tensors for those that are computed from others (normed, pruned, ...).

    Args:
        path: of the module in the model.
        module: the module; those in it count, too.
    """
    for below, each in module.named_modules(prefix=path):
        where = f"model.get_submodule({below!r})"
        if parametrize.is_parametrized(each):
            names = list(each.parametrizations)  # type: ignore[arg-type]
            yield from (f"torch.nn.utils.parametrize.remove_parametrizations({where}, {name!r})" for name in names)
        for hook in each._forward_pre_hooks.values():
            known: Any = hook
            if isinstance(hook, prune.BasePruningMethod):
                yield f"torch.nn.utils.prune.remove({where}, {known._tensor_name!r})"
            elif type(hook).__name__ in _REMOVERS:
                yield f"torch.nn.utils.{_REMOVERS[type(hook).__name__]}({where}, {known.name!r})"


def _hindrance(model: nn.Module, error: Exception) -> str:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            try:
                if name != "_modules":
                    copy.deepcopy(value)
            except Exception as cause:
                what = f"attribute {name!r} of {type(module).__name__} {path!r} can't be copied, which is done first"
                if isinstance(value, Tensor):  # torch's own words fill three lines
                    calls = " and ".join(remedies(path, module))
                    how = f"{calls} gives the layer one of its own" if calls else "detach it"
                    return f"{what}: it is computed from other tensors; {how}"
                return f"{what} ({_line(cause)}); keep it outside of the model, or set it to None meanwhile"
    return f"{type(model).__name__} can't be copied, which is done first: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# By name, as torch hides the modules of these hooks behind functions of the same name.
_REMOVERS = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}

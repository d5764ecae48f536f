"""Files of weights: given to a model but for its head, or refused in one line.

Why one could not be read is told without the advice to have its reader run what else it holds.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

IMAGENET = 1000  # classes


def with_weights(
    make: Callable[[int], nn.Module],
    classes: int | None,
    weights: str | None,
    name: str,
    left_out: tuple[str, ...] = (),
) -> nn.Module:
    """A model that has the weights of a file, or its own initial ones.

    Args:
        make: makes the model from its number of outputs.
        classes: number of outputs; the head stays as it was made where the weights are of another number. None: as
            many as the weights have, else ImageNet's 1000.
        weights: file with a ``state_dict`` of that model; None: random initial weights.
        name: of the model, for the error.
        left_out: beginnings of names in the file that the model does without.

    Raises:
        ValueError: a file that holds no weights, or those of another model.
        FileNotFoundError: no such file.
    """
    outputs, state = classes or IMAGENET, {} if weights is None else _read(weights)
    model = make(outputs)
    if weights is None:
        return model
    state = {key: value for key, value in state.items() if not key.startswith(left_out)}
    theirs = _load(model, state, outputs, f"model.weights={weights}: not the weights of {name}")
    same = classes is not None or theirs == outputs
    return model if same else with_weights(make, theirs, weights, name, left_out)


def why_unread(error: BaseException) -> str:
    """Why torch has not read a file with ``weights_only``, in a few words.

    Of a file that holds anything else torch says how to load it all the same, which runs what it holds.
    """
    text = " ".join(str(error).split())
    if more := re.search(r"GLOBAL (\S+) (?:was not|whose)|(must be imported to load|allowlisted via)", text):
        named = f" ({more[1]})" if more[1] else ""
        return f"it holds more than weights{named}; only weights are read, as anything else could run code here"
    reason = text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0].partition(". ")[0]
    return f"it may be truncated: {type(error).__name__}{': ' * bool(reason)}{reason[:200]}"


def _read(weights: str) -> dict[str, Tensor]:
    """The ``state_dict`` in a file of weights."""
    said = f"model.weights={weights}:"
    if not Path(weights).is_file():
        raise FileNotFoundError(f"{said} {'that is a folder' if Path(weights).is_dir() else 'no such file'}")
    try:  # not mapped into memory, which files of before 2020, torchvision's own among them, don't allow
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes that are no such file make of the reader
        raise ValueError(f"{said} cannot be read as a file of weights ({why_unread(error)})") from error
    if not _is_state(state):
        parts = state.items() if isinstance(state, dict) else ()
        inner = [key for key, value in parts if _is_state(value) and value]
        more = "".join(f"; it holds one as {key!r}: torch.save(torch.load(FILE)[{key!r}], NEW)" for key in inner[:1])
        raise ValueError(f"{said} holds no state_dict (names and tensors){more}")
    if not any(value.ndim >= 2 for value in state.values()):
        raise ValueError(f"{said} holds no weight of a layer")
    return state


def _is_state(found: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(found, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())


def _load(model: nn.Module, state: dict[str, Tensor], classes: int, refusal: str) -> int:
    """Give a model its weights, but for a head of another number of classes; returns the number of the weights.

    The head is the layer that differs in its number of outputs and in nothing else, wherever it stands in the file:
    behind any other layer there would be one that differs in its inputs.
    """
    own = model.state_dict()
    sizes = {key: (tuple(state[key].shape), tuple(own[key].shape)) for key in own if key in state}
    head = {key: size for key, size in sizes.items() if size[0] != size[1]}
    layers = {(key.rpartition(".")[0], theirs[:1]) for key, (theirs, _) in head.items()}
    if len(layers) > 1 or any((classes, *theirs[1:]) != ours for theirs, ours in head.values()):
        key, (theirs, ours) = next(iter(head.items()))
        raise ValueError(f"{refusal}: {key} is {theirs} in the file, {ours} in the model")
    try:
        found = model.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    except RuntimeError as error:  # tensors of a kind that can't be copied: sparse, quantised
        raise ValueError(f"{refusal}: {' '.join(str(error).split())[:300]}") from error
    missing = [key for key in found.missing_keys if key not in head]
    if missing or found.unexpected_keys:
        raise ValueError(f"{refusal}: {_differences(missing, found.unexpected_keys, list(own))}")
    return next((theirs[0] for theirs, _ in head.values()), classes)


def _differences(missing: list[str], unexpected: list[str], own: list[str]) -> str:
    """Which names a file of weights lacks and which it has too many, or what stands before all of them."""
    prefix = next((key.removesuffix(own[0]) for key in unexpected if key.endswith(f".{own[0]}")), "")
    if prefix and all(key.startswith(prefix) for key in unexpected):
        return f"its names begin with {prefix!r}; save them without: {{k.removeprefix({prefix!r}): v for k, v in ...}}"
    lists = {"it lacks": missing, "it has, and the model lacks,": unexpected}
    return "; ".join(
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in lists.items()
        if names
    )

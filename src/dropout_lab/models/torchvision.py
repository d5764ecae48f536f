"""Any classification model of torchvision, its head and stem made to fit the data."""

from pathlib import Path
from typing import Any, TypeGuard

import torch
import torchvision
from torch import Tensor, nn

from dropout_lab.cli import nearest
from dropout_lab.models.weights import why_unread

STEMS = ("cifar",)
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")  # trained with more losses than one; built without them


def torchvision_model(
    input_shape: tuple[int, int, int],
    num_classes: int | None,
    name: str,
    weights: str | None = None,
    stem: str | None = None,
) -> nn.Module:
    """A model of ``torchvision.models`` with ``num_classes`` outputs.

    Args:
        input_shape: (channels, height, width); torchvision's models take 3 channels.
        num_classes: number of outputs; the head is replaced where the weights are of another number of classes. None:
            as many as the weights have, else ImageNet's 1000.
        name: as ``torchvision.models.list_models()`` spells it.
        weights: file with a ``state_dict`` of that model; None: random initial weights.
        stem: "cifar" gives a residual net a 3x3 convolution of stride 1 and no max-pooling, for small images
            (He et al. 2016, section 4.2); None: as torchvision builds it.

    Raises:
        ValueError: an unknown name or stem, a stem for a model that has none, other images than of 3 channels, a file
            that holds no weights, or those of another model.
        FileNotFoundError: no such file of weights.
    """
    require_name(name)
    if input_shape[0] != 3:
        raise ValueError(f"{name} takes 3 channels, the data has {input_shape[0]}; data.channels=3 repeats a grey one")
    options: dict[str, Any] = {}
    if name in _WITH_AUXILIARY_HEADS:
        options = {"aux_logits": False, "init_weights": weights is None}
    elif name.startswith("vit_"):
        options = {"image_size": input_shape[1]}  # its positions are learnt for one size
    classes, state = num_classes or 1000, {} if weights is None else _read(weights)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    if weights is not None:
        auxiliary = ("aux1.", "aux2.", "AuxLogits.") if name in _WITH_AUXILIARY_HEADS else ()
        state = {key: value for key, value in state.items() if not key.startswith(auxiliary)}
        theirs = _load(model, state, classes, f"model.weights={weights}: not the weights of {name}")
        if num_classes is None and theirs != classes:
            return torchvision_model(input_shape, theirs, name, weights, stem)
        if name in _WITH_AUXILIARY_HEADS:
            model.transform_input = True  # type: ignore[assignment]  # torchvision's weights of them were made elsewhere
    if stem is not None:
        _replace_stem(model, stem, name)
    return model


def wants(name: str, stem: str | None = None, **_: Any) -> tuple[int, int]:
    """(channels, pixels) of the images a model was designed for: 32 with the CIFAR stem, else as it was published.

    Raises:
        ValueError: an unknown name.
    """
    require_name(name)
    transforms: Any = torchvision.models.get_model_weights(name).DEFAULT.transforms  # type: ignore[attr-defined]
    return 3, 32 if stem == "cifar" else int(transforms.keywords["crop_size"])


torchvision_model.wants = wants  # type: ignore[attr-defined]


def require_name(name: str) -> None:
    """Refuse a name that is no classification model of torchvision.

    Raises:
        ValueError: with the nearest name.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ValueError(
            f"model.name={name}: no classification model of torchvision; {nearest(name, names)}"
            f"there are {len(names)}: {', '.join(names[:4])}, ... (torchvision.models.list_models())"
        )


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


def _replace_stem(model: nn.Module, stem: str, name: str) -> None:
    """Make a residual net begin as one for small images."""
    if stem not in STEMS:
        raise ValueError(f"model.stem={stem}: must be {' or '.join(STEMS)}, or null")
    if not isinstance(model, torchvision.models.ResNet):
        raise ValueError(f"model.stem={stem}: is for residual nets (resnet18, wide_resnet50_2, ...), not for {name}")
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()  # type: ignore[assignment]

"""Any classification model of torchvision, its head and stem made to fit the data."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from dropout_lab.cli import nearest

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
    state = None if weights is None else _read(weights)
    classes = (num_classes or 1000) if state is None else _classes_of(state)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    if state is not None:
        auxiliary = ("aux1.", "aux2.", "AuxLogits.") if name in _WITH_AUXILIARY_HEADS else ()
        _load(model, {key: value for key, value in state.items() if not key.startswith(auxiliary)}, name, str(weights))
        if name in _WITH_AUXILIARY_HEADS:
            model.transform_input = True  # type: ignore[assignment]  # torchvision's weights of them were made elsewhere
    if num_classes is not None and classes != num_classes:
        _replace_head(model, classes, num_classes)
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
    if not Path(weights).is_file():
        raise FileNotFoundError(f"model.weights={weights}: no such file")
    try:  # not mapped into memory, which files of before 2020, torchvision's own among them, don't allow
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"model.weights={weights}: cannot be read as a file of weights: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"model.weights={weights}: holds no state_dict (names and tensors)")
    if not any(value.ndim >= 2 for value in state.values()):
        raise ValueError(f"model.weights={weights}: holds no weight of a layer")
    return state


def _classes_of(state: dict[str, Tensor]) -> int:
    """Number of classes of a ``state_dict``: rows of its last weight, as the head is defined last."""
    return len([value for value in state.values() if value.ndim >= 2][-1])


def _load(model: nn.Module, state: dict[str, Tensor], name: str, weights: str) -> None:
    """Give a model its weights; refuse those of another one."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"model.weights={weights}: not the weights of {name}: {reason}") from error


def _replace_head(model: nn.Module, old: int, new: int) -> None:
    """Put a layer with ``new`` outputs in the place of the last one with ``old``."""
    path, head = next(
        (path, module)
        for path, module in reversed(list(model.named_modules()))
        if old in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    )
    fitting: nn.Module
    if isinstance(head, nn.Conv2d):  # squeezenet
        fitting = nn.Conv2d(head.in_channels, new, head.kernel_size)  # type: ignore[arg-type]
    else:
        assert isinstance(head, nn.Linear)
        fitting = nn.Linear(head.in_features, new)
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, fitting)


def _replace_stem(model: nn.Module, stem: str, name: str) -> None:
    """Make a residual net begin as one for small images."""
    if stem not in STEMS:
        raise ValueError(f"model.stem={stem}: must be {' or '.join(STEMS)}, or null")
    if not isinstance(model, torchvision.models.ResNet):
        raise ValueError(f"model.stem={stem}: is for residual nets (resnet18, wide_resnet50_2, ...), not for {name}")
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()  # type: ignore[assignment]

"""Any classification model of torchvision, its head and stem made to fit the data."""

from typing import Any

import torchvision
from torch import nn

from dropout_lab.cli import nearest
from dropout_lab.models.options import choices, require_chosen, telling_options
from dropout_lab.models.weights import with_weights

STEMS = ("cifar",)
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")  # trained with more losses than one; built without them


def torchvision_model(
    input_shape: tuple[int, int, int],
    num_classes: int | None,
    name: str,
    weights: str | None = None,
    stem: str | None = None,
    **options: Any,
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
        options: of the model's class in torchvision, as ``stochastic_depth_prob``, ``dropout``, ``attention_dropout``.

    Raises:
        ValueError: an unknown name, stem or option, a stem for a model that has none, other images than of 3
            channels, a file that holds no weights, or those of another model.
        FileNotFoundError: no such file of weights.
    """
    require_name(name)
    if input_shape[0] != 3:
        raise ValueError(f"{name} takes 3 channels, the data has {input_shape[0]}; data.channels=3 repeats a grey one")
    given: dict[str, Any] = {}
    if name in _WITH_AUXILIARY_HEADS:
        given = {"aux_logits": False, "init_weights": weights is None}
    elif name.startswith("vit_"):
        given = {"image_size": input_shape[1]}  # its positions are learnt for one size
    builder = torchvision.models.get_model_builder(name)
    free = choices(builder, ("num_classes", *given))
    require_chosen(name, options, builder, free)

    def make(classes: int) -> nn.Module:
        with telling_options(name, options, free):
            model: nn.Module = builder(weights=None, num_classes=classes, **given, **options)
        return model

    auxiliary = ("aux1.", "aux2.", "AuxLogits.") if name in _WITH_AUXILIARY_HEADS else ()
    model = with_weights(make, num_classes, weights, name, auxiliary)
    if weights is not None and name in _WITH_AUXILIARY_HEADS:
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
            f"model.name={name}: no classification model of torchvision; {nearest(str(name), names)}"
            f"there are {len(names)}: {', '.join(names[:4])}, ... (torchvision.models.list_models())"
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

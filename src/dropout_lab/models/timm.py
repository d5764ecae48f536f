"""Any model of timm (Wightman 2019), its stem and head made to fit the data; nothing is downloaded."""

from typing import Any

import timm
from torch import nn

from dropout_lab.cli import nearest
from dropout_lab.models.options import arguments_of, choices, telling_options
from dropout_lab.models.weights import with_weights

_FETCHING = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def timm_model(
    input_shape: tuple[int, int, int],
    num_classes: int | None,
    name: str,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """A model of timm with ``num_classes`` outputs, for images of any number of channels.

    Args:
        input_shape: (channels, height, width).
        num_classes: number of outputs; the head is replaced where the weights are of another number of classes. None:
            as many as the weights have, else ImageNet's 1000.
        name: as ``timm.list_models()`` spells it.
        weights: file with a ``state_dict`` of that model; None: random initial weights.
        options: for ``timm.create_model``, as ``drop_path_rate`` or ``patch_size``. ``img_size`` is that of the images
            unless it is given.

    Raises:
        ValueError: an unknown name or option, a wish to download, a file that holds no weights, or those of another
            model.
        FileNotFoundError: no such file of weights.
    """
    published = _published(name)
    for key in _FETCHING:
        if value := options.pop(key, None):
            raise ValueError(f"model.{key}={value}: nothing is downloaded; give weights as a file, model.weights=FILE")
    entry = timm.model_entrypoint(_architecture(name))
    given: dict[str, Any] = {"in_chans": input_shape[0]}
    size = input_shape[1:]
    if "img_size" in arguments_of(entry) and "img_size" not in options and size != published[1:]:
        given["img_size"] = size  # its positions or windows are made for one size
    free = choices(entry, ("num_classes", "in_chans", *_FETCHING))

    def make(classes: int) -> nn.Module:
        with telling_options(name, options, free):
            model: nn.Module = timm.create_model(name, num_classes=classes, **given, **options)
        return model

    return with_weights(make, num_classes, weights, name)


def wants(name: str, weights: str | None = None, img_size: Any = None, **_: Any) -> tuple[int | None, int]:
    """(channels, pixels) of the images a model was designed for; without weights of colours any channels will do.

    Raises:
        ValueError: an unknown name.
    """
    channels, pixels, _width = _published(name)
    return channels if weights else None, img_size if isinstance(img_size, int) else pixels


timm_model.wants = wants  # type: ignore[attr-defined]


def _architecture(name: str) -> str:
    """The name of a model without that of its weights, as in resnet18.a1_in1k."""
    return name.partition(".")[0]


def _published(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of the images of a model's weights.

    Raises:
        ValueError: no name of a model, with the nearest, or one of what would be fetched.
    """
    if ":" in str(name):
        raise ValueError(f"model.name={name}: nothing is downloaded; give a name of timm's and model.weights=FILE")
    if not timm.is_model(str(name)):
        names = timm.list_models()
        raise ValueError(
            f"model.name={name}: no model of timm; {nearest(str(name), names)}"
            f"there are {len(names)}: {', '.join(names[:4])}, ... (timm.list_models())"
        )
    try:
        published: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # a name of weights that there are not
        raise ValueError(f"model.name={name}: {error}") from error
    size: tuple[int, int, int] = published.input_size
    return size

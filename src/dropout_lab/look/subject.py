"""Subject of a look: a network in eval mode, one image as it sees it, and the names of its classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dropout_lab.cli import UserError, plain
from dropout_lab.data.image_file import UnreadableImageError, fit, read_image

DEFAULT_IMAGE = "china.jpg"  # ships with scikit-learn; ImageNet calls it a palace


class NoImagesError(UserError):
    """A run whose data are no images has nothing to look at."""


@dataclass(frozen=True)
class Subject:
    """A network and what it looks at.

    Attributes:
        net: in eval mode.
        x: the image as the network takes it, (1, channels, height, width).
        picture: the image for people, (height, width) or (height, width, 3) in [0, 1].
        classes: names, as many as the network has outputs.
        title: of the network.
        image: what the image is, in a few words.
        trained: False: random initial weights.
        p: probability to drop, where the user gives none.
    """

    net: nn.Module
    x: Tensor
    picture: np.ndarray[Any, Any]
    classes: Sequence[str]
    title: str
    image: str
    trained: bool
    p: float


def from_torchvision(name: str, weights: str, image: str, seed: int) -> Subject:
    """A classification model of torchvision, looking at an image as ImageNet's models do: resized, centre cropped.

    Args:
        name: as ``torchvision.models.list_models()`` spells it.
        weights: file with a ``state_dict`` of that model; "": random weights.
        image: file; "": a photo that ships with scikit-learn.
        seed: of the random weights.

    Raises:
        UserError: an unknown name, a file that is missing, not an image, or not of this model.
    """
    import torchvision

    from dropout_lab.models.torchvision import torchvision_model

    photo = open_image(image)  # before a large network is built
    torch.manual_seed(seed)
    try:
        net = torchvision_model((3, 224, 224), None, name, weights or None).eval()
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    meta: Any = next(iter(torchvision.models.get_model_weights(name)))
    pixels = getattr(net, "image_size", None)  # of a vision transformer, which takes no other
    preset = meta.transforms(**({"crop_size": pixels, "resize_size": pixels} if pixels else {}))
    x = preset(photo).unsqueeze(0)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    picture = (x[0] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    with torch.no_grad():
        outputs = net(x).shape[1]
    known = bool(weights) and outputs == len(meta.meta["categories"])
    classes = meta.meta["categories"] if known else [f"class {i}" for i in range(outputs)]
    return Subject(net, x, picture, classes, name, Path(image or DEFAULT_IMAGE).name, bool(weights), 0.5)


def from_run(folder: Path, checkpoint: str, image: str) -> Subject:
    """The network of a run, looking at a test image of its data, or at an image of the user's made alike.

    Args:
        folder: the run folder.
        checkpoint: "best" or "last".
        image: file, or the number of a test image; "": the first one.

    Raises:
        NoImagesError: the run's data are no images.
        UserError: a folder, checkpoint or image that is not there or does not fit.
    """
    from dropout_lab.data.images import ImageData
    from dropout_lab.runs.network import built_from, restore

    run = restore(folder, checkpoint)
    data = run.data
    if not isinstance(data, ImageData):
        raise NoImagesError(f"run={folder}: a look is for images, and {type(data).__name__} has none")
    names = plain([*getattr(data, "class_names", ())]) or [str(i) for i in range(data.num_classes)]
    if image and not image.isdigit():
        channels, height, width = data.native_shape
        if channels not in (1, 3):
            raise UserError(f"image={image}: the run's data has {channels} channels, which no image file has")
        photo = fit(open_image(image), height, width).convert("L" if channels == 1 else "RGB")
        raw = torch.from_numpy(np.array(photo)).float().view(1, height, width, -1).permute(0, 3, 1, 2) / 255
        called = Path(image).name
    else:
        index = int(image or 0)
        if index >= len(data.test.targets):
            raise UserError(f"image={image}: the run's data has test images 0 to {len(data.test.targets) - 1}")
        raw = data.test.inputs[index : index + 1]
        called = f"test image {index} (class {names[int(data.test.targets[index])]})"
    picture = raw[0].permute(1, 2, 0).squeeze(-1)
    picture = (picture - picture.min()) / (picture.max() - picture.min()).clamp(min=1e-12)
    with built_from(folder):
        name, p = plain(run.config.run.name), float(run.config.dropout.p)
    return Subject(run.net, data.prepare(raw), picture.numpy(), names, name, called, True, p)


def open_image(path: str) -> Image.Image:
    """An image file in RGB, upright; "": a photo that ships with scikit-learn.

    Raises:
        UserError: no image.
    """
    if not path:
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(DEFAULT_IMAGE))
    try:
        return read_image(path)
    except UnreadableImageError as error:
        raise UserError(f"image={error}") from error

"""Reader of image files: upright, in RGB, 8 bits a channel; what is no image, or has no scale, is one line."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

Answer = TypeVar("Answer")

SUFFIXES = (  # of files that are taken for images: torchvision's, and others that images are found under
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".jpe", ".jfif", ".jp2", ".gif", ".avif", ".heic", ".heif", ".pbm", ".pnm"),
)
_ORIENTATION, _BITS, _WHITE = 274, 258, 262  # tags of EXIF, TIFF and TIFF
_UPRIGHT = {  # EXIF's orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(ValueError):
    """A file that is no image; what a DataLoader puts in front of a worker's message, a traceback, is left out."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def read_image(path: str | Path) -> Image.Image:
    """The image of a file in RGB, upright as its EXIF orientation says; the first one of an animation.

    16 bits become 8 by the range of their type, never by that of the values: images of one data set keep their
    relations. What is transparent is white.

    Raises:
        UnreadableImageError: no file, no image, a damaged one, or numbers that have no scale: 32 bits, floating point.
    """
    return _open(path, _pixels)


def upright_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of ``read_image``, in most formats from the beginning of the file.

    Raises:
        UnreadableImageError: no file, or no image.
    """

    def size(file: Image.Image) -> tuple[int, int]:
        width, height = file.size
        return (height, width) if _orientation(file) >= 5 else (width, height)

    return _open(path, size)


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of an image, as large as can be, in another size: torchvision's ``Resize`` and ``CenterCrop``."""
    if image.size == (width, height):
        return image
    from torchvision.transforms.functional import center_crop, resize

    if image.width * height >= image.height * width:  # too wide
        size = [height, height * image.width // image.height]
    else:
        size = [width * image.height // image.width, width]
    return center_crop(resize(image, size), [height, width])  # type: ignore[no-any-return]


def _open(path: str | Path, ask: Callable[[Image.Image], Answer]) -> Answer:
    """What a question about an opened file is answered, without Pillow's warnings, which name no file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                return ask(file)
    except Exception as error:  # damaged files end in errors of any kind
        raise UnreadableImageError(f"{path} cannot be read as an image: {_reason(path, error)}") from error


def _pixels(file: Image.Image) -> Image.Image:
    """The image of an opened file, upright, in RGB."""
    file.load()
    image = _in_8_bits(file)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")  # on white, not on what lies below
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    turn = _UPRIGHT.get(_orientation(file))
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _in_8_bits(file: Image.Image) -> Image.Image:
    """An image with 8 bits a channel, for which 16 lose the lower 8, as Pillow has it in colour."""
    if file.mode.startswith("I;16") or (file.mode, file.format) == ("I", "PPM"):  # Pillow stretches that to 16 bits
        tags = getattr(file, "tag_v2", {})
        grey = np.asarray(file) >> (tags.get(_BITS, (16,))[0] - 8)  # 12 bits are in 16, too
        return Image.fromarray((255 - grey if tags.get(_WHITE) == 0 else grey).astype(np.uint8))  # 0: 0 is white
    if file.mode in ("I", "F", "LAB"):
        raise UnreadableImageError(f"its pixels are of Pillow's mode {file.mode}")
    return file


def _orientation(file: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, of an opened file; 1, upright, where it has none that can be read."""
    if file.format == "TIFF":  # Pillow turns it
        return 1
    try:
        found = file.getexif().get(_ORIENTATION)
    except Exception:  # damaged notes don't damage the picture
        return 1
    return found if found in _UPRIGHT else 1


def _reason(path: str | Path, error: Exception) -> str:
    """Why a file could not be read, and what to do."""
    if isinstance(error, UnreadableImageError):
        return f"{error}; save it as grey or RGB with 8 or 16 bits a channel"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller or remove it"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; make it readable, or replace or remove it"
    if Path(path).stat().st_size == 0:
        return "it is empty; replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        return "it is of no kind that Pillow knows, or damaged; replace, convert or remove it"
    return "it is damaged or cut off; replace or remove it"

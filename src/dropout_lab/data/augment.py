"""Random changes of training images, for a whole batch at once and on its device.

What happens to an image is a function of (seed, epoch, batch, row of the GLOBAL batch): the same on any number of
processes, after a resume, and for every strategy that is compared at that seed.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor

from dropout_lab.dropout.philox import Stream
from dropout_lab.dropout.rows import Rows
from dropout_lab.dropout.streams import row_words


class BatchKey(NamedTuple):
    """What the random numbers of a process's rows of a batch are a function of."""

    stream: Stream
    first_row: int  # position in the global batch of the first of its rows

    def numbers(self, count: int, device: torch.device) -> Tensor:
        """Four random numbers for each of so many rows, 0 <= number < 2^32, as int64 (count, 4) on a device."""
        words = torch.as_tensor(row_words(self.stream, Rows(self.first_row, count), 4, device))
        return words.to(torch.int64) & 0xFFFFFFFF


def crop_flip(images: Tensor, key: BatchKey, padding: int = 4) -> Tensor:
    """Pad images with zeros, cut out the old size at a random place, mirror left and right with probability 1/2.

    As torchvision's ``RandomCrop(size, padding=4)`` and ``RandomHorizontalFlip()``, each image for itself.

    Args:
        images: (N, C, H, W) of any dtype; 0 is black.
        key: from :func:`batch_key`.
        padding: pixels on each side.

    Returns:
        images of the same shape and dtype.
    """
    count, channels, height, width = images.shape
    bits = key.numbers(count, images.device)
    top, left = (bits[:, :2] * (2 * padding + 1) >> 32).unbind(1)  # each of 0..2*padding as likely, to 2^-32
    mirrored = bits[:, 2:3] >> 31 == 1
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    rows = torch.arange(height, device=images.device) + top[:, None]
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored, width - 1 - columns, columns) + left[:, None]
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    index = pixels.flatten(1)[:, None].expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def resized_crop_flip(images: Tensor, key: BatchKey, area: float = 0.08, ratio: float = 4 / 3) -> Tensor:
    """Cut a rectangle out of images at random, bring it to the old size, mirror it with probability 1/2.

    As torchvision's ``RandomResizedCrop`` and ``RandomHorizontalFlip`` (Szegedy et al. 2015, section 6), each image for
    itself. Rectangles begin between pixels, too, and sides that would be longer than the image are cut to it, where
    torchvision draws again.

    Args:
        images: (N, C, H, W) of any dtype.
        key: from :func:`batch_key`.
        area: the smallest share of the image, 0 < area <= 1; shares up to 1 are equally likely.
        ratio: greatest ratio of the rectangle's sides to the image's, in either direction, >= 1.

    Returns:
        images of the same shape and dtype.
    """
    count, _, height, width = images.shape
    bits = key.numbers(count, images.device)
    mirrored = bits[:, 3] & 1 == 1
    chance = (bits >> 1).to(torch.float32) / 2**31
    size = (area + (1 - area) * chance[:, 0]).sqrt()
    tilt = ratio ** (chance[:, 1] - 0.5)  # twice in the ratio of the sides
    rectangle = torch.stack([size / tilt, size * tilt], 1).clamp(max=1.0)  # height and width as shares of the image's
    start = (1 - rectangle) * chance[:, 2:]
    rows, columns = (
        start[:, side, None] + rectangle[:, side, None] * ((torch.arange(pixels, device=images.device) + 0.5) / pixels)
        for side, pixels in enumerate((height, width))
    )
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    columns, rows = columns[:, None].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)
    where = torch.stack([columns, rows], 3) * 2 - 1
    floating = images.to(torch.promote_types(images.dtype, torch.float32))
    cut = torch.nn.functional.grid_sample(
        floating, where.to(floating.dtype), padding_mode="border", align_corners=False
    )
    return cut.to(images.dtype) if images.is_floating_point() else cut.round_().to(images.dtype)


CHANGES: dict[str, Callable[[Tensor, BatchKey], Tensor]] = {
    "crop_flip": crop_flip,
    "resized_crop_flip": resized_crop_flip,
}


def mixup(images: Tensor, classes: Tensor, num_classes: int, share: float) -> tuple[Tensor, Tensor]:
    """Mix images and targets in pairs: ``share`` of each and the rest of its partner's (Zhang et al. 2018).

    Rows 2k and 2k + 1 are partners: strangers in a batch that is a random choice, and of one process where each has an
    even number of rows. (torchvision's ``MixUp`` rolls the rows that a process has, so its partners depend on their
    number.)

    Args:
        images: (N, C, H, W), floating point.
        classes: (N,) integers.
        num_classes: K.
        share: from :func:`mixing_share`.

    Returns:
        images of the same shape and dtype, and targets (N, K): probabilities, at least float32.

    Raises:
        ValueError: N is odd.
    """
    if len(images) % 2:
        raise ValueError(f"data.mixup mixes pairs: each device needs an even number of rows a batch, got {len(images)}")
    targets = torch.nn.functional.one_hot(classes, num_classes)
    targets = targets.to(torch.promote_types(images.dtype, torch.float32))
    return _swapped(images).lerp(images, share), _swapped(targets).lerp(targets, share)


def mixing_share(seed: int, epoch: int, batch: int, alpha: float) -> float:
    """The share that mixup keeps of each image of a batch: Beta(alpha, alpha), a function of the arguments alone.

    Args:
        seed, epoch, batch: as for :func:`batch_key`.
        alpha: > 0; 1 is uniform, near 0 nearly nothing is mixed.
    """
    digest = blake2b(f"mixup/{seed}/{epoch}/{batch}".encode(), digest_size=6).digest()
    return float(betaincinv(alpha, alpha, (int.from_bytes(digest, "little") + 0.5) / 2**48))


def batch_key(seed: int, epoch: int, batch: int, first_row: int) -> BatchKey:
    """The key of a process's rows of a batch: row r of the global batch has the numbers that follow those of row r - 1.

    Args:
        seed: of training.
        epoch, batch: number of the epoch, and of the batch in it.
        first_row: position in the global batch of the first of this process's rows.
    """
    digest = blake2b(f"augment/{seed}/{epoch}/{batch}".encode(), digest_size=8).digest()
    return BatchKey(Stream(int.from_bytes(digest, "little"), 0, 0, 0), first_row)


def _swapped(rows: Tensor) -> Tensor:
    """Rows in which the partners 2k and 2k + 1 have changed places."""
    return rows.view(-1, 2, *rows.shape[1:]).flip(1).flatten(0, 1)

"""Random changes of training images, for a whole batch at once and on its device.

What happens to an image is a function of (seed, epoch, batch, row of the GLOBAL batch): the same on any number of
processes, after a resume, and for every strategy that is compared at that seed.
"""

from hashlib import blake2b

import torch
from torch import Tensor

from dropout_lab.dropout.philox import random_int32


def crop_flip(images: Tensor, key: Tensor, padding: int = 4) -> Tensor:
    """Pad with zeros, cut out the old size at a random place, mirror left and right with probability 1/2.

    As torchvision's ``RandomCrop(size, padding=4)`` and ``RandomHorizontalFlip()``, each image for itself.

    Args:
        images: (N, C, H, W) of any dtype; 0 is black.
        key: from :func:`batch_key`.
        padding: pixels on each side.

    Returns:
        images of the same shape and dtype.
    """
    count, channels, height, width = images.shape
    bits = random_int32(key.to(images.device), count, 4).to(torch.int64) & 0xFFFFFFFF
    top, left = (bits[:, :2] * (2 * padding + 1) >> 32).unbind(1)  # each of 0..2*padding as likely, to 2^-32
    mirrored = bits[:, 2:3] >> 31 == 1
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    rows = torch.arange(height, device=images.device) + top[:, None]
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored, width - 1 - columns, columns) + left[:, None]
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    index = pixels.flatten(1)[:, None].expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def batch_key(seed: int, epoch: int, batch: int, first_row: int) -> Tensor:
    """Philox key of a process's rows of a batch: row r of the global batch reads counter r.

    Args:
        seed: of training.
        epoch, batch: number of the epoch, and of the batch in it.
        first_row: position in the global batch of the first of this process's rows.
    """
    digest = blake2b(f"augment/{seed}/{epoch}/{batch}".encode(), digest_size=8).digest()
    word = int.from_bytes(digest, "little", signed=True)
    return torch.tensor([word, first_row], dtype=torch.int64).view(torch.uint64)

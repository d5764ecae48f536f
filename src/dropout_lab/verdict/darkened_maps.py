"""Darkened feature maps: does a network still see what it saw when parts of its maps are dark? Over many images.

Dropout acts on the maps that ``look`` draws by default: those of the network's dropout layers, else the last activation
at each size of map. Each image meets several masks; all ways draw from the same keys, so rescaled and unscaled have the
very same masks.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dropout_lab.cli import UserError
from dropout_lab.dropout import mask_keys
from dropout_lab.look.views import droppers, hooked, places

WAYS: dict[str, dict[str, str]] = {
    "rescaled": {},
    "unscaled": {"scaling": "unscaled"},
    "whole_maps": {"mask": "channel"},
}
IMAGES = 500  # the first ones
BATCH = 50
DRAWS = 10  # of masks for each image


class Darkened(NamedTuple):
    """What a network sees with dropout on its maps, compared with what it sees without; means over images and masks.

    Attributes:
        same_class: how often the likeliest class stays the one that it is without.
        probability: of the class that is likeliest without.
        dark: fraction of what is lit in the first maps without, and 0 with dropout.
    """

    same_class: float
    probability: float
    dark: float


@torch.no_grad()
def compare_with_darkened(net: nn.Module, images: Tensor, way: str, p: float, seed: int) -> Darkened:
    """Pass images through a network with dropout on its maps, and without.

    Args:
        net: in eval mode.
        images: as it takes them, (N, channels, height, width).
        way: of WAYS.
        p: probability to drop.
        seed: of the masks.

    Raises:
        UserError: the network has no maps.
    """
    found = places(net, images[:1])
    names = [name for name in found.dropped if name in found.maps]
    if not names:
        raise UserError("the network has no feature maps, of which parts could go dark")
    found = replace(found, shown=names[:1])
    layers = droppers(found, names, p, WAYS[way])
    same, probability, lit, lost = [], [], 0, 0
    for start in range(0, min(len(images), IMAGES), BATCH):
        batch = images[start : min(start + BATCH, IMAGES)]
        with hooked(found, {}) as maps:
            seen = net(batch).argmax(1, keepdim=True)
            off = maps[names[0]] != 0
        for draw in range(DRAWS):
            with mask_keys(seed, draw, range(start, start + len(batch))), hooked(found, layers) as maps:
                logits = net(batch)
            same.append(logits.argmax(1, keepdim=True) == seen)
            probability.append(logits.softmax(1).gather(1, seen))
            lit += int(off.sum())
            lost += int((off & (maps[names[0]] == 0)).sum())
    return Darkened(float(torch.cat(same).double().mean()), float(torch.cat(probability).double().mean()), lost / lit)

"""Picture of a look: a row for each layer, a column for each condition, one colour scale a row, predictions below."""

from math import ceil, isqrt, sqrt
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dropout_lab.look.views import OFF, Look
from dropout_lab.look.words import RANDOM, headline, likeliest, mean, notes

TILES = 16  # maps of one layer that are shown
_LEFT, _CELL, _GAP, _HEAD, _GUESSES = 0.75, 3.3, 0.25, 3.0, 2.2  # inches
_BLUE, _GREY, _VERMILION = "#0072b2", "#a0a0a0", "#d55e00"  # Okabe and Ito 2008
_CAPTIONS = {
    "dropout off": "what the network computes in eval mode",
    "element-wise": "each unit dropped or times 1/(1-p)",
    "spatial": "each map dropped or times 1/(1-p)",
    "unscaled": "same units dropped, none rescaled",
}


def draw(look: Look) -> Figure:
    """Draw a look; ``savefig`` of the figure writes it."""
    columns = len(look.views)
    width = _LEFT + columns * (_CELL + _GAP) + 0.8
    height = _HEAD + len(look.layers) * (_CELL + _GAP + 0.15) + _GUESSES
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")

    def axes(left: float, top: float, wide: float, high: float) -> Axes:
        """Axes at inches from the upper left corner."""
        return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))

    lefts = [_LEFT + column * (_CELL + _GAP) for column in range(columns)]
    _head(axes(_LEFT, 0.15, 1.7, 1.7), axes(_LEFT + 1.9, 0.15, width - _LEFT - 2, 1.7), look)
    for left, condition in zip(lefts, look.views, strict=True):
        _column(axes(left, 2.0, _CELL, 0.6), condition)
    for row, layer in enumerate(look.layers):
        top = _HEAD + row * (_CELL + _GAP + 0.15)
        bar = axes(lefts[-1] + _CELL + 0.12, top, 0.13, _CELL)
        _maps([axes(left, top, _CELL, _CELL) for left in lefts], bar, look, layer)
    longest = max(likeliest(look, condition, 1)[0][1] for condition in look.views)
    for left, condition in zip(lefts, look.views, strict=True):
        _guesses(axes(left, height - _GUESSES, _CELL, _GUESSES - 0.15), look, condition, longest)
    return figure


def _head(left: Axes, right: Axes, look: Look) -> None:
    """The image, and beside it the headline and the notes."""
    left.imshow(look.subject.picture, cmap="gray", interpolation="nearest")
    left.axis("off")
    right.axis("off")
    title = headline(look)
    lines = [(title, min(18, 1300 / len(title)), "bold", "black")]
    lines += [(note, 11.5, "normal", "black") for note in notes(look)]
    if not look.subject.trained:
        lines.insert(1, (RANDOM, 12.5, "bold", _VERMILION))
    for line, (words, size, weight, colour) in enumerate(lines):
        right.text(0, 0.9 - 0.2 * line, words, size=size, weight=weight, color=colour, va="center")


def _column(axes: Axes, condition: str) -> None:
    """The name of a condition with its caption, above a column."""
    axes.axis("off")
    axes.text(0.5, 0.68, condition, size=16, weight="bold", ha="center", va="center")
    axes.text(0.5, 0.18, _CAPTIONS[condition], size=10.5, color="#404040", ha="center", va="center")


def _maps(cells: list[Axes], bar: Axes, look: Look, layer: str) -> None:
    """Maps of one layer in a row; their colours end where the largest values without dropout go when rescaled."""
    outputs = [view.outputs[layer] for view in look.views.values()]
    tiles, of = _strongest(outputs, layer in look.maps)
    images = [_mosaic(each) for each in tiles]
    plain = images[0][np.isfinite(images[0])]
    high = max(float(np.quantile(np.abs(plain), 0.999)) / (1 - look.p), 1e-12)
    signed = bool(plain.min() < -0.1 * plain.max())
    colours, low = ("RdBu_r", -high) if signed else ("magma", 0.0)
    for axes, image, condition in zip(cells, images, look.views, strict=True):
        drawn = axes.imshow(image, interpolation="nearest", cmap=colours, vmin=low, vmax=high)
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)
        zeros = float((look.views[condition].outputs[layer] == 0).float().mean())
        words = f"mean {mean(look, layer, condition)}, {zeros:.0%} zeros".replace(" x off", "× off")
        axes.set_title(words, size=12, pad=5)
    name = layer if len(layer) <= 30 else f"{layer[:10]}…{layer[-19:]}"
    cells[0].set_ylabel(f"{name}  ({look.layers[layer]})\n{of}", size=11, labelpad=6)
    scale = bar.figure.colorbar(drawn, cax=bar, extend="both" if signed else "max")
    scale.outline.set_visible(False)  # type: ignore[operator]
    bar.tick_params(labelsize=9)


def _strongest(outputs: list[Tensor], maps: bool) -> tuple[list[Tensor], str]:
    """At most 16 images of each output, those strongest in the first one, in order; and what they are of all."""
    images = [_images(output, maps) for output in outputs]
    count, height, width = images[0].shape
    if count == 1:
        return images, f"{outputs[0].numel()} units"
    chosen = images[0].abs().mean((1, 2)).topk(min(TILES, count)).indices.sort().values
    some = f"{TILES} of {count}" if count > TILES else f"{count}"
    return [image[chosen] for image in images], f"{some} maps of {height}×{width}"


def _images(x: Tensor, maps: bool) -> Tensor:
    """An output as (count, height, width): maps, tokens laid out as patches, else one image of all units."""
    if x.ndim == 3:
        return x if maps else x.permute(2, 0, 1)  # (height, width, channels) in swin and convnext
    side = isqrt(x.shape[0])
    if x.ndim == 2 and x.shape[0] - side**2 <= 1 < side:  # a vision transformer's, maybe after a class token
        return x[-(side**2) :].T.reshape(-1, side, side)
    width = ceil(sqrt(x.numel()))
    height = ceil(x.numel() / width)
    return torch.cat([x.flatten(), x.new_full((height * width - x.numel(),), torch.nan)]).view(1, height, width)


def _mosaic(planes: Tensor) -> np.ndarray[Any, Any]:
    """Images (count, height, width) side by side, with gaps."""
    times = ceil(28 / max(planes.shape[1:]))  # magnified, so that gaps are thin
    planes = planes.repeat_interleave(times, 1).repeat_interleave(times, 2)
    count, height, width = planes.shape
    across = ceil(sqrt(count))
    down, gap = ceil(count / across), round(max(height, width) / 14) if count > 1 else 0
    image = np.full((down * (height + gap) - gap, across * (width + gap) - gap), np.nan, dtype=np.float32)
    for index, plane in enumerate(planes.float().numpy()):
        top, left = index // across * (height + gap), index % across * (width + gap)
        image[top : top + height, left : left + width] = plane
    return image


def _guesses(axes: Axes, look: Look, condition: str, longest: float) -> None:
    """Bars of the likeliest classes; blue is the class that comes first without dropout, wherever it went."""
    (right, _), *_ = likeliest(look, OFF)
    guesses = likeliest(look, condition)
    heights = range(len(guesses), 0, -1)
    colours = [_BLUE if name == right else _GREY for name, _ in guesses]
    axes.barh([y - 0.3 for y in heights], [share for _, share in guesses], height=0.2, color=colours)
    for y, (name, share) in zip(heights, guesses, strict=True):
        axes.text(0, y, f"{share:.1%}  {name[:34]}", size=11.5, va="center", color=_BLUE if name == right else "black")
    axes.set(xlim=(0, longest), ylim=(0.5, len(guesses) + 0.5))
    axes.axis("off")

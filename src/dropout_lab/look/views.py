"""Views of one image by one network: dropout off, element-wise, spatial, unscaled, everything else in eval mode.

Dropout acts on the output of the chosen layers, inside the network, so the later layers see what it leaves. All four
passes draw from the same keys: element-wise and unscaled have the very same masks and differ in the scaling alone.
Layers of the network's own stay in eval mode; on top of classic dropout's x * q, inverted gives the x * m of training.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.activations.taps import Tap, taps_of
from dropout_lab.cli import UserError
from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.dropout.graph.calls import calls
from dropout_lab.dropout.graph.feature_maps import why_not_maps, why_not_maps_after
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.dropout.graph.nodes import ACTIVATIONS
from dropout_lab.look.subject import Subject
from dropout_lab.runs.tracks import thinned

CONDITIONS: dict[str, dict[str, str]] = {
    "dropout off": {},
    "element-wise": {},
    "spatial": {"mask": "channel"},
    "unscaled": {"scaling": "unscaled"},
}
OFF = "dropout off"
_ROWS = 4  # layers in the picture, unless the user names them
_PIXELS = 64  # of a map, at most, so that single dropped pixels can be seen


@dataclass(frozen=True)
class View:
    """What one pass gave: the output of each layer shown, without the batch dimension, and each class's probability."""

    outputs: dict[str, Tensor]
    probabilities: Tensor


@dataclass(frozen=True)
class Look:
    """A subject under every condition.

    Attributes:
        subject: who looks at what.
        p: probability to drop.
        seed: of the masks.
        layers: name -> what it is, "ReLU", for the layers shown, in order of depth.
        maps: names of the layers that hold (channels, height, width).
        dropped: names of the layers whose output dropout acts on.
        views: condition -> its pass, in the order of CONDITIONS.
    """

    subject: Subject
    p: float
    seed: int
    layers: dict[str, str]
    maps: set[str]
    dropped: list[str]
    views: dict[str, View]


@dataclass(frozen=True)
class Places:
    """Places in a network where dropout acts and where one looks: layers, by their names.

    Attributes:
        taps: name -> the output of a layer.
        maps: those that hold (channels, height, width).
        shown: those to look at, in order of depth.
        dropped: those whose output dropout acts on.
    """

    taps: Mapping[str, Tap]
    maps: set[str]
    shown: list[str]
    dropped: list[str]


def look_at(subject: Subject, p: float, patterns: Sequence[str] = (), where: str = "", seed: int = 0) -> Look:
    """Pass the subject's image through its network, once under every condition.

    Args:
        subject: left as it was.
        p: probability to drop.
        patterns: layers to show, as for ``places``.
        where: what dropout acts on, as for ``places``.
        seed: of the masks.

    Raises:
        UserError: as ``places``, and a layer that gives no floating-point tensor.
    """
    found = places(subject.net, subject.x, patterns, where)
    views = {}
    for condition, axes in CONDITIONS.items():
        layers = droppers(found, found.dropped, 0.0 if condition == OFF else p, axes)
        with mask_keys(seed, 0, range(1)), hooked(found, layers) as outputs, torch.no_grad():
            logits = subject.net(subject.x)
        views[condition] = View({name: output[0] for name, output in outputs.items()}, logits[0].float().softmax(0))
    missing = [name for name in found.shown if name not in views[OFF].outputs]
    if missing:
        raise UserError(f"layers={','.join(patterns)}: {missing[0]} gives no floating-point tensor in this network")
    kind = {name: _kind(found.taps[name].module) for name in found.shown}
    return Look(subject, p, seed, kind, found.maps, found.dropped, views)


def places(net: nn.Module, x: Tensor, patterns: Sequence[str] = (), where: str = "") -> Places:
    """The layers to look at, and those that dropout acts on.

    Args:
        net: in eval mode.
        x: a batch as it takes it.
        patterns: layers to show, as for ``taps_of``; default: up to four over the depth, those that dropout acts on
            if the network has dropout on maps, else the last activation at each size of map.
        where: what dropout acts on: "layers" (those shown), "existing" (dropout layers of the network),
            "activations", "convolutions"; "": "existing" for a network with dropout on maps, else "layers".

    Raises:
        UserError: a pattern without a layer, a place without one.
    """
    taps = {tap.name: tap for tap in _outputs(net, None)}
    maps = _with_maps(net)
    existing = [name for name, tap in taps.items() if isinstance(tap.module, _DropoutNd)]
    if patterns:
        try:
            taps |= (chosen := {tap.name: tap for tap in _outputs(net, patterns)})
        except ValueError as error:
            raise UserError(str(error)) from error
        shown = sorted(chosen)
    elif any(name in maps for name in existing) and where in ("", "existing"):
        shown = _spread(existing)
    else:
        shown = _spread(_last_of_each_size(net, x, taps, maps))
    where = where or ("existing" if any(name in maps for name in existing) else "layers")
    kinds: dict[str, tuple[type[nn.Module], ...]] = {"activations": ACTIVATIONS, "convolutions": (_ConvNd,)}
    dropped = {"layers": shown, "existing": existing}.get(where) or [
        name for name, tap in taps.items() if isinstance(tap.module, kinds.get(where, ()))
    ]
    if not dropped:
        raise UserError(f"where={where}: the network has no such layer; allowed: layers, activations, convolutions")
    return Places(taps, maps, shown, dropped)


def droppers(found: Places, names: Sequence[str], p: float, axes: Mapping[str, Any]) -> dict[str, Dropout]:
    """A dropout layer for each of these places, to be hung there by :func:`hooked`.

    Args:
        found: places of a network.
        names: those to drop at.
        p: probability to drop.
        axes: arguments of ``Dropout``; where there are no maps a mask for channels becomes one for single units.
    """
    return {name: _layer(name, p, axes, name in found.maps) for name in names}


@contextmanager
def hooked(found: Places, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Let dropout layers act on the outputs of places, and keep the outputs of those shown, within the context.

    Args:
        found: places of a network, which does one forward pass in the context.
        layers: name of a place -> the layer that acts there, as from :func:`droppers`; {}: none.

    Returns:
        name of a place shown -> its output with the batch dimension, filled by the forward pass.
    """
    taps, shown = found.taps, found.shown
    kept: dict[str, Tensor] = {}
    numbers: Counter[nn.Module] = Counter()
    names: dict[nn.Module, dict[int, str]] = {}
    for name in {*layers, *shown}:
        names.setdefault(taps[name].module, {})[taps[name].call] = name

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        name, numbers[module] = names[module].get(numbers[module]), numbers[module] + 1
        if name is None or not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        output = layers[name](output) if name in layers else output
        if name in shown:
            kept[name] = output.detach().clone()  # an in-place layer may come next
        return output

    with intercepting(names, after=after):
        yield kept


def _outputs(net: nn.Module, patterns: Sequence[str] | None) -> list[Tap]:
    """The taps at outputs of layers, those that match the patterns."""
    return [tap for tap in taps_of(net, patterns) if tap.where == "output"]


def _with_maps(net: nn.Module) -> set[str]:
    """Names of the calls that put out (N, C, H, W), by the graph."""
    return {
        call.name
        for call in calls(net)
        if (why_not_maps_after(call.module) if call.node is None else why_not_maps(call.node)) is None
    }


def _last_of_each_size(net: nn.Module, x: Tensor, taps: Mapping[str, Tap], maps: set[str]) -> list[str]:
    """The last activation (else layer) at each size of map up to 64 pixels; all where there are no two sizes."""
    activations = [name for name in taps if isinstance(taps[name].module, ACTIVATIONS)] or list(taps)
    candidates = [name for name in activations if name in maps] or [name for name in taps if name in maps]
    with hooked(Places(taps, maps, candidates, []), {}) as outputs, torch.no_grad():
        net(x)
    sizes = {name: value.shape[2:] for name, value in outputs.items()}
    fitting = {size: name for name, size in sizes.items() if len(size) == 2 and 1 < max(size) <= _PIXELS}
    return sorted(fitting.values() if len(fitting) > 1 else activations)


def _spread(names: Sequence[str]) -> list[str]:
    """At most four of some names, evenly spaced, the first and the last among them."""
    return [names[place] for place in thinned(len(names), _ROWS)]


def _layer(name: str, p: float, axes: Mapping[str, Any], maps: bool) -> Dropout:
    """A dropout layer that draws the masks of a layer of this name."""
    # Channel masks would take the tokens of a transformer for channels.
    layer = Dropout(p, **(axes if maps or axes.get("mask") != "channel" else {}))
    layer.name = name
    return layer


def _kind(module: nn.Module) -> str:
    """What a layer is, in a word."""
    return "dropout" if isinstance(module, _DropoutNd) else type(module).__name__

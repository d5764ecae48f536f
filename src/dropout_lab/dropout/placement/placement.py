"""Where dropout goes in a model, in words, and how strong it is there by depth.

Rates for site l = 1..L in call order and p the rate of the last site; of branches, l counts blocks:

    constant    p
    linear      p * l / L              rises from p / L to p (Huang et al. 2016, "stochastic depth")
    geometric   1 - (1 - p) ** (l/L)   each site keeps the same fraction of what the one before keeps
    [p1, ...]   as listed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dropout_lab.dropout.axes import require_rate
from dropout_lab.dropout.placement.sites import PLACES, Site

RATES = ("constant", "linear", "geometric")


@dataclass(frozen=True)
class Placement:
    """Which sites of a model get dropout, and at what rate.

    Args:
        where: one place or several of
            "existing": instead of the dropout layers that the model has (whatever their p);
            "activations": after every activation module (ReLU, GELU, SiLU, ...) that sees data, not parameters only;
            "convolutions": after every convolution, likewise;
            "classifier": before the last Linear, instead of a dropout layer that stands there;
            "input": on the model's input;
            "branches": at the end of every residual branch, before it is added to its shortcut; instead of stochastic
                depth (DropPath) that stands there; where a model can't be traced, only there;
            "attention": on the attention weights, (N, heads, L, S): of `nn.MultiheadAttention`, of torchvision's Swin
                and MaxViT, and instead of dropout layers behind a softmax or called `attn_drop` (timm);
            "pattern": after the leaf modules whose path matches `pattern`, or instead of dropout and stochastic depth;
                where it matches none, after the blocks that it matches;
            "default": "existing" if the model has any, else "classifier";
            "none": nowhere, and dropout layers that the model has stay as they are.
        p: probability to DROP, of every site or of the deepest one.
        rate: "constant", "linear", "geometric" (formulas at the top of this file) or a list with one p for each site.
        pattern: shell pattern, or several, on module paths: "layer4.*", "*.conv2"; `*` matches dots, too.

    A module that is called twice in a forward pass is one site, at the place of its first call.

    Raises:
        ValueError: an unknown place or rate rule; `p`, or one of the list, outside [0, 1); "pattern" without a
            pattern, or a pattern without "pattern".
        TypeError: `p`, or one of the list, is not a number.
    """

    where: str | Sequence[str] = "existing"
    p: float = 0.5
    rate: str | Sequence[float] = "constant"
    pattern: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        unknown = [str(place) for place in self.places if place not in PLACES]
        if unknown or not self.places:
            raise ValueError(f"placement.where={','.join(unknown)}: must be one or several of {', '.join(PLACES)}")
        if "none" in self.places and len(self.places) > 1:
            raise ValueError(f"placement.where={','.join(self.places)}: none can't be together with other places")
        if isinstance(self.rate, str) and self.rate not in RATES:
            raise ValueError(f"placement.rate={self.rate}: must be {', '.join(RATES)}, or a list of p")
        require_rate(self.p, "placement.")
        for p in () if isinstance(self.rate, str) else self.rate:
            require_rate(p, "placement.rate: ")
        if ("pattern" in self.places) != bool(self.patterns):
            raise ValueError(
                f"placement.where={self.where!r} with pattern={self.pattern!r}: "
                "where=pattern needs a pattern, and only that place uses one"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """The places of `where` as a tuple."""
        return (self.where,) if isinstance(self.where, str) else tuple(self.where)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of `pattern` as a tuple, empty if there is none."""
        if self.pattern is None or isinstance(self.pattern, str):
            return (self.pattern,) if self.pattern else ()
        return tuple(self.pattern)


def rates(p: float, rate: str | Sequence[float], count: int) -> list[float]:
    """The drop probability of each of `count` sites in call order; formulas at the top of this file.

    Raises:
        ValueError: an explicit list of another length than `count`.
    """
    depths = [site / count for site in range(1, count + 1)]
    if rate == "constant":
        return [p] * count
    if rate == "linear":
        return [p * depth for depth in depths]
    if rate == "geometric":
        return [p if depth == 1 else -math.expm1(depth * math.log1p(-p)) for depth in depths]
    if len(rate) != count:
        raise ValueError(
            f"placement.rate={list(rate)}: lists {len(rate)} rates, and the placement has {count} sites; "
            "give one for each"
        )
    return list(rate)  # type: ignore[arg-type]


def rates_of_sites(placement: Placement, sites: Sequence[Site]) -> list[float]:
    """The drop probability of each site; sites of one block have the same depth."""
    if not isinstance(placement.rate, str):
        return rates(placement.p, placement.rate, len(sites))
    blocks = list(dict.fromkeys(site.block or site.name for site in sites))
    of_block = dict(zip(blocks, rates(placement.p, placement.rate, len(blocks)), strict=True))
    return [of_block[site.block or site.name] for site in sites]
